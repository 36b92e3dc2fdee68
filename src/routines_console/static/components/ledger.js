/**
 * Show the outcome of each slot of a routine, page by page; a skipped slot with its reason and the run that blocked it.
 */

import { empty, h, link } from "../dom.js";
import { at, duration } from "../time.js";
import { count, kindOf, KINDS, skipSentence } from "../words.js";
import { cause } from "./cause.js";
import { dayField } from "./moment.js";
import { pages } from "./pages.js";
import { badge } from "./strip.js";

const PAGE = 25;
const OUTCOMES = [
  ["", "All outcomes"], ["started", "Started"], ["skipped", "Skipped for any reason"], ["overlap", "Skipped: still running"],
  ["coalesced", "Taken over by a later slot"],
  ["missed", "Missed"], ["paused", "Paused"], ["failed_to_start", "Failed to start"],
  ["calendar", "Excluded by a calendar"], ["outside_hours", "Outside active hours"],
  ["backoff", "Skipped after failures"],
];

/**
 * Build the list; call `load` to fill it.
 *
 * @param {import("../main.js").Context} context
 * @param {any} routine
 * @param {string | null} slot It begins with the day of this slot; null: with the newest.
 */
export function ledger({ session: { api, collection }, signal }, routine, slot) {
  const path = ["routines", collection, routine.task_name, routine.name, "occurrences"];
  const outcome = h("select", { id: "outcome", onchange: () => list.load() }, OUTCOMES.map(([value, text]) => h("option", { value }, text)));
  const day = dayField("until", () => list.load(), slot ?? "");

  async function read(cursor) {
    const page = await api.page(path, { outcome: outcome.value, until: day.read(), limit: PAGE, cursor }, signal);
    return { items: page.items, next: page.cursor };
  }

  function nothing() {
    return outcome.value || day.read()
      ? empty("No slots match", "Choose another outcome or a later day.")
      : empty("No slots yet", "Every slot is listed here once it is due, whether it starts a run or not.");
  }

  const list = pages({ kind: "ledger", read, row: (slot) => row(slot, routine.task_name), nothing, more: "Older slots" }, signal);
  list.element.prepend(
    h("div", { class: "filters small" },
      h("label", { class: "unseen", for: "outcome" }, "Outcome"), outcome,
      h("span", { class: "pair" }, h("label", { for: "until" }, "up to"), day.input)));
  return list;
}

function row(slot, task) {
  const kind = kindOf(slot);
  return h("li", {},
    h("div", { class: "slot" }, at(slot.scheduled_for), slot.slot_count > 1 && [" to ", at(slot.last_scheduled_for)]),
    h("div", {}, badge(kind), slot.slot_count > 1 && h("span", { class: "quiet" }, ` ${count(slot.slot_count, "slot")}`)),
    h("div", { class: "story" }, story(slot, task)));
}

function story(slot, task) {
  if (slot.outcome === "started") {
    return [run(task, slot.trajectory_id), ` started ${duration(slot.delay_seconds)} after the slot.`,
      slot.last_trajectory_id && [" Last attempt: ", run(task, slot.last_trajectory_id), "."],
      slot.error && cause(slot.error)];
  }
  const blocking = slot.blocking_trajectory_id;
  return [`${skipSentence(slot)}`, blocking ? [": ", run(task, blocking)] : "", ".",
    slot.filled_by && filled(slot, task)];
}

/** Name the run that has filled a slot since; of several slots the last one. */
function filled({ slot_count: slots, filled_slots: number, filled_by: id, filled_status: status }, task) {
  const words = slots > 1 ? ` ${number.toLocaleString("en")} of them filled, the last by ` : " Filled by ";
  return [words, run(task, id), status && ` (${(KINDS[status] ?? status).toLowerCase()})`, "."];
}

/** @param {string} task @param {number} id */
function run(task, id) {
  return link(["runs", task, id], {}, `Run ${id}`);
}
