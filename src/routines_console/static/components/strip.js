/**
 * Show the last slots of a routine as a row of bars, oldest first. Height and outline distinguish the outcomes as well as
 * colour does: success is quiet, failure stands out.
 */

import { address, h } from "../dom.js";
import { written } from "../time.js";
import { count, KINDS, kindOf, listed } from "../words.js";
import { roving } from "./roving.js";

export const SLOTS = 14;

/**
 * Build the strip. Each bar leads to its run, or to why its slot did not run; all of them are one stop of the Tab key.
 *
 * @param {any[]} outcomes Newest first, as the service returns them.
 * @param {any} routine
 */
export function strip(outcomes, routine) {
  const slots = outcomes.filter((outcome) => outcome.scheduled_for).slice(0, SLOTS).reverse();
  const blanks = Array.from({ length: SLOTS - slots.length }, () => h("i", { class: "bar none" }));
  const bars = slots.map((slot) => bar(slot, routine));
  const element = h("span", { class: "strip", role: bars.length ? "group" : "img", "aria-label": summary(slots) }, blanks, bars);
  roving(element, "a").settle(bars.at(-1));
  return element;
}

/** Build a strip of the same size for outcomes that are not loaded yet. */
export function unknownStrip() {
  return h("span", { class: "strip", "aria-hidden": "true" }, Array.from({ length: SLOTS }, () => h("i", { class: "bar none" })));
}

function bar(outcome, { id, name, task_name: task }) {
  const kind = kindOf(outcome);
  const slot = outcome.scheduled_for;
  const run = outcome.last_trajectory_id ?? outcome.trajectory_id;
  const more = outcome.slot_count > 1 ? ` (${count(outcome.slot_count, "slot")}, until ${written(outcome.last_scheduled_for)})` : "";
  const words = `${written(slot)}${more}: ${KINDS[kind] ?? kind}${run ? `, run ${run}` : ""}`;
  const href = run ? address(["runs", task, run]) : address(["routines", task, name], { slot });
  return h("a", { id: `slot-${id}-${slot}`, href, "aria-label": words, title: words }, h("i", { class: `bar ${kind}` }));
}

function summary(slots) {
  if (!slots.length) return "No slots yet";
  const tally = new Map();
  for (const slot of slots) tally.set(kindOf(slot), (tally.get(kindOf(slot)) ?? 0) + 1);
  const counts = [...tally].map(([kind, number]) => `${number} ${(KINDS[kind] ?? kind).toLowerCase()}`);
  return `Last ${count(slots.length, "outcome")}: ${listed(counts)}`;
}

/**
 * Show a kind of outcome as a word with its sign.
 *
 * @param {string} kind
 * @param {string} [text]
 */
export function badge(kind, text = KINDS[kind] ?? kind) {
  return h("span", { class: `badge ${kind}` }, h("i", { "aria-hidden": "true" }), text);
}

/** Explain the bars. */
export function legend() {
  const kinds = ["completed", "running", "failed", "failed_to_start", "missed", "overlap", "paused"];
  return h("ul", { class: "legend", "aria-label": "What the bars mean" },
    kinds.map((kind) => h("li", {}, h("span", { class: "strip", "aria-hidden": "true" }, h("i", { class: `bar ${kind}` })), KINDS[kind])));
}
