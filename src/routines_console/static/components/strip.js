/**
 * Show the last slots of a routine as a row of bars, oldest first. Height and outline distinguish the outcomes as well as
 * colour does: success is quiet, failure stands out.
 */

import { h } from "../dom.js";
import { utc } from "../time.js";
import { count, KINDS, kindOf, listed } from "../words.js";

export const SLOTS = 14;

/**
 * Build the strip.
 *
 * @param {any[]} outcomes Newest first, as the service returns them.
 */
export function strip(outcomes) {
  const slots = outcomes.filter((outcome) => outcome.scheduled_for).slice(0, SLOTS).reverse();
  const blanks = Array.from({ length: SLOTS - slots.length }, () => h("i", { class: "bar none" }));
  return h("span", { class: "strip", role: "img", "aria-label": summary(slots) }, blanks, slots.map(bar));
}

/** Build a strip of the same size for outcomes that are not loaded yet. */
export function unknownStrip() {
  return h("span", { class: "strip", "aria-hidden": "true" }, Array.from({ length: SLOTS }, () => h("i", { class: "bar none" })));
}

function bar(outcome) {
  const kind = kindOf(outcome);
  const more = outcome.slot_count > 1 ? ` (${count(outcome.slot_count, "slot")}, until ${utc(outcome.last_scheduled_for)})` : "";
  return h("i", { class: `bar ${kind}`, title: `${utc(outcome.scheduled_for)} UTC${more}: ${KINDS[kind] ?? kind}` });
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
