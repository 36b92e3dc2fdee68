/**
 * One routine in a list: who, when, how it went lately, what is next.
 */

import { h, link } from "../dom.js";
import { ago } from "../time.js";
import { cadenceWords } from "../words.js";
import { badge, strip, unknownStrip } from "./strip.js";

/**
 * @param {import("../fleet.js").Entry} entry
 * @param {any} [recent] Its latest outcomes, where they are known.
 */
export function row({ routine, standing }, recent) {
  const { outcome } = standing;
  const run = outcome && (outcome.trajectory_id ?? outcome.blocking_trajectory_id);
  const last = standing.kind ? badge(standing.kind, standing.words) : h("span", { class: "quiet" }, standing.words);
  return h("li", { class: `row ${standing.group}` },
    h("div", { class: "who" },
      link(["routines", routine.task_name, routine.name], { id: `routine-${routine.id}`, class: "name" }, routine.name),
      h("span", { class: "quiet" }, routine.task_name)),
    h("div", { class: "cadence" }, cadenceWords(routine.cadence)),
    h("div", { class: "slots", "data-strip": routine.id }, recent ? strip(recent.outcomes) : unknownStrip()),
    h("div", { class: "last" },
      run ? link(["runs", routine.task_name, run], { class: "to-run" }, last) : last,
      outcome && h("span", { class: "quiet" }, ago(outcome.ended_at ?? outcome.recorded_at))),
    h("div", { class: "next" }, next(routine)),
    standing.group === "attention" && standing.cause && h("p", { class: "cause", title: standing.cause }, standing.cause));
}

function next(routine) {
  if (routine.paused) return h("span", { class: "quiet" }, "paused");
  if (!routine.next_run_at) return h("span", { class: "quiet" }, "by hand");
  return [h("span", { class: "label" }, "Next "), ago(routine.next_run_at)];
}
