/**
 * Say in a sentence how all routines are doing, and why a list of them is empty.
 */

import { empty, h, link, title } from "../dom.js";
import { ago } from "../time.js";
import { count, listed } from "../words.js";

/** Say how all routines are doing. @param {import("../fleet.js").Fleet} fleet */
export function summary(fleet) {
  const tally = fleet.tally();
  const total = fleet.entries.length;
  const counts = [
    tally.well && count(tally.well, "went well", "went well"),
    tally.attention && count(tally.attention, "needs attention", "need attention"),
    tally.running && count(tally.running, "is running", "are running"),
    tally.other && count(tally.other, "was skipped or cancelled", "were skipped or cancelled"),
    tally.paused && count(tally.paused, "is paused", "are paused"),
    tally.silent && count(tally.silent, "has not run yet", "have not run yet"),
  ].filter(Boolean);
  const next = fleet.next();
  return [
    h("div", { class: "headline" }, title(headline(tally, total, fleet.isWhole)),
      link(["new"], { class: "button primary" }, "New routine")),
    total > 0 && h("p", { class: "lede" }, `${count(total, "routine")}${fleet.isWhole ? "" : " so far"}, by their last outcome: ${listed(counts)}.`, tally.attention > fleet.unseen() && ` Of those that need attention, you have seen ${(tally.attention - fleet.unseen()).toLocaleString("en")}.`,
      next && [" Next: ", link(["routines", next.routine.task_name, next.routine.name], {}, next.routine.name), " ", ago(next.routine.next_run_at), "."]),
  ];
}

function headline(tally, total, isWhole) {
  if (!total) return "Nothing is scheduled yet.";
  if (tally.attention) return tally.attention === 1 ? "One routine needs attention." : `${tally.attention.toLocaleString("en")} routines need attention.`;
  if (!isWhole) return "Nothing needs attention so far.";
  if (tally.other) return "Nothing failed.";
  if (tally.well) return "Everything ran.";
  if (tally.running) return "Everything is still running.";
  return tally.silent ? "Nothing has run yet." : "Everything is paused.";
}

/** Say why the list is empty. @param {import("../fleet.js").Fleet} fleet @param {any} filter */
export function nothing(fleet, filter) {
  if (!fleet.entries.length) {
    return empty("No routines yet", "A routine runs a task on a schedule: every hour, or every weekday at nine. ",
      link(["new"], {}, "Create the first one"), ", or browse the ", link(["tasks"], {}, "tasks"), ".");
  }
  if (!fleet.isWhole) return empty("None so far", "Still loading.");
  if (filter.state === "attention" && !filter.q && !filter.task) {
    return empty("Nothing needs attention", "No routine failed or missed its last slot.");
  }
  return empty("No routines match", "Remove a word from the search, or ", link([], {}, "show all"), ".");
}
