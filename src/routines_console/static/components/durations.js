/**
 * Show how long the newest runs of a routine took beside this one, and the other attempts at its slot.
 */

import { h, link } from "../dom.js";
import { duration, secondsBetween, written } from "../time.js";
import { count, KINDS } from "../words.js";
import { roving } from "./roving.js";
import { badge } from "./strip.js";

/** How many runs are compared. */
export const RUNS = 50;

/**
 * Build a bar for each run that has ended, oldest first, and say how this one compares; null if there are too few to compare.
 *
 * @param {any} run
 * @param {any[]} newest The runs of its routine, newest first.
 */
export function durations(run, newest) {
  // What was read of this run may be older than what is shown of it.
  const fresh = newest.map((each) => each.trajectory_id === run.trajectory_id ? run : each);
  const ended = fresh.filter((each) => each.started_at && each.ended_at).reverse();
  const others = ended.filter((each) => each.trajectory_id !== run.trajectory_id && each.status === "completed");
  if (others.length < 2) return null;
  const usual = median(others.map(seconds));
  const most = Math.max(...ended.map(seconds));
  const bars = h("ul", { class: "durations", "aria-label": `Durations of ${count(ended.length, "run")}, oldest first` },
    ended.map((each) => bar(each, run, most)));
  roving(bars, "a");
  return h("div", {}, h("p", {}, compared(run, usual, others.length)), bars);
}

function bar(each, run, most) {
  const isThis = each.trajectory_id === run.trajectory_id;
  const words = `Run ${each.trajectory_id}, ${written(each.started_at)}: ${(KINDS[each.status] ?? each.status).toLowerCase()} after ${duration(seconds(each))}`;
  const drawn = h("i", { class: each.status, "aria-hidden": "true", css: { "--part": (seconds(each) / most).toFixed(3) } });
  return h("li", { class: isThis ? "this" : null, title: words }, isThis ? [drawn, h("span", { class: "unseen" }, `This run: ${words}`)]
    : link(["runs", run.name.split("/")[1], each.trajectory_id], {}, drawn, h("span", { class: "unseen" }, words)));
}

function compared(run, usual, number) {
  const told = `Half of the last ${number} completed runs took less than ${duration(usual)}.`;
  if (!run.started_at) return told;
  const took = seconds(run);
  const times = took / usual;
  const beside = times >= 1.5 ? `, ${times.toFixed(times < 10 ? 1 : 0)} times as long as usual` : "";
  return `${run.ended_at ? "It took" : "It has taken"} ${duration(took)}${beside}. ${told}`;
}

/** @param {{started_at: string, ended_at: string | null}} run */
function seconds({ started_at: start, ended_at: end }) {
  return secondsBetween(start, end);
}

function median(numbers) {
  const sorted = [...numbers].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * List the attempts at the slot of a run, the first one first; null if there is no other.
 *
 * @param {any} run
 * @param {any[]} newest The runs of its routine, newest first.
 */
export function attempts(run, newest) {
  const first = run.retry_of ?? run.trajectory_id;
  const all = newest.filter((each) => each.trajectory_id === first || each.retry_of === first).reverse();
  if (all.length < 2) return null;
  return h("ol", { class: "attempts", "aria-label": "Attempts at this slot" }, all.map((each, index) => h("li", {},
    `Attempt ${index + 1}: `, each.trajectory_id === run.trajectory_id ? h("strong", {}, "this run")
      : link(["runs", run.name.split("/")[1], each.trajectory_id], {}, `run ${each.trajectory_id}`), " ", badge(each.status))));
}
