/**
 * Show what a backfill would do: how many slots it runs, and what becomes of the first of them, and why.
 */

import { button, giveWay, h, link } from "../dom.js";
import { at } from "../time.js";
import { count, listed, REPROCESS } from "../words.js";
import { badge } from "./strip.js";

/** How many slots are listed at first. */
const FIRST = 10;

/**
 * Build it.
 *
 * @param {any} plan The service's answer to a dry run.
 * @param {string} task
 * @param {any} actions What can be done about it: shown above the slots, so that no list has to be passed.
 */
export function fatesOf({ run, rerun, left, slots, truncated }, task, actions) {
  const isLeft = ({ becomes }) => becomes === "left";
  const row = (slot) => fate(slot, task);
  const older = slots.filter(({ becomes, reason }) => becomes === "run" && reason === "before_creation").length;
  return [
    h("p", { class: "sentence" }, summary(run, rerun, left)),
    older > 0 && h("p", { class: "notice" }, `${older.toLocaleString("en")} of them ${older === 1 ? "is" : "are"} from before the routine was created. A later beginning leaves ${older === 1 ? "it" : "them"} out.`),
    actions,
    truncated && h("p", { class: "hint" }, `Here are the first ${slots.length.toLocaleString("en")} slots. The numbers are those of all.`),
    beginning("to-run", slots.filter((slot) => !isLeft(slot)), row),
    slots.some(isLeft) && h("details", { open: !run && !rerun },
      h("summary", {}, stays(left)), beginning("to-leave", slots.filter(isLeft), row)),
  ];
}

/** Say how many slots would run: "3 slots would run, 1 would run again and 12 would stay as they are." */
function summary(run, rerun, left) {
  if (!run && !rerun) return left ? `Nothing would run: ${stays(left)}.` : "Nothing would run: there is no slot in this time.";
  const [first, ...more] = [[run, "run"], [rerun, "run again"]].filter(([number]) => number);
  const parts = [`${count(first[0], "slot")} would ${first[1]}`, ...more.map(([number, verb]) => `${number.toLocaleString("en")} would ${verb}`)];
  return `${listed(left ? [...parts, stays(left)] : parts)}.`;
}

/** @param {number} number */
function stays(number) {
  return `${count(number, "slot")} would stay as ${number === 1 ? "it is" : "they are"}`;
}

/** List the first of the slots, and the others when the user asks for them. */
function beginning(id, slots, row) {
  const list = h("ol", { class: "ledger" }, slots.slice(0, FIRST).map(row));
  const rest = slots.slice(FIRST);
  const more = button(`Show ${rest.length.toLocaleString("en")} more`, () => {
    const added = rest.map(row);
    list.append(...added);
    giveWay(more, added[0]);
  }, { id: `more-${id}` });
  return slots.length > 0 && [list, rest.length > 0 && h("div", {}, more)];
}

function fate(slot, task) {
  return h("li", {},
    h("div", { class: "slot" }, at(slot.scheduled_for)),
    h("div", {}, badge(slot.reason)),
    h("div", { class: "story" }, story(slot, slot.trajectory_id && link(["runs", task, slot.trajectory_id], {}, `Run ${slot.trajectory_id}`))));
}

/** Say what becomes of a slot, and why if it is left as it is. */
function story({ becomes, reason }, run) {
  if (becomes === "run") return "Would run for the first time.";
  if (becomes === "rerun") return ["Would run again, after ", run, "."];
  switch (reason) {
    case "completed":
    case "archived": return ["Stays: ", run, " did its work."];
    case "failed":
    case "cancelled": return ["Stays: to run it again, choose “", REPROCESS.failed, "”. So far: ", run, "."];
    case "running":
    case "pending": return ["Stays: ", run, " has not ended."];
    case "forgotten": return ["Stays: its run may have been deleted. To run it, choose “", REPROCESS.all, "”."];
    default: return "Stays: it was excluded on purpose.";
  }
}
