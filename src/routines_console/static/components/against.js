/**
 * Show what is different in a run that failed from the last good run of its routine.
 */

import { button, fill, h, link, section } from "../dom.js";
import { compare, hasFailed, lastGood } from "../comparison.js";
import { ago, at, duration } from "../time.js";
import { count } from "../words.js";
import { difference } from "./difference.js";
import { complaint } from "./failure.js";

const HEADING = "Against the last good run";
/** Steps after these are shown only if the user asks for them: what went wrong first comes first. */
const MOST_STEPS = 5;
/** Fields of one value after these are only counted. */
const MOST_FIELDS = 50;

/**
 * Build the place for it. Nothing is asked of the service before `draw` gets a run that failed, and then once.
 *
 * @param {import("../main.js").Context} context
 */
export function against(context) {
  const element = h("div", {});
  const content = h("div", { class: "against" });
  let isAsked = false;

  async function load(run, newest, routine) {
    fill(content, h("p", { class: "quiet" }, "Looking for it…"));
    try {
      const good = await lastGood(context, run, newest);
      fill(content, good ? story(run, good, context.params.task, routine) : h("p", { class: "quiet" }, "No run of this routine before it has completed."));
    } catch (error) {
      if (!context.signal.aborted) fill(content, complaint(error), button("Try again", () => load(run, newest, routine)));
    }
  }

  return {
    element,
    /**
     * Draw it if the run has failed.
     *
     * @param {any} run
     * @param {any[]} newest The newest runs of its routine, newest first; empty if they are not known.
     * @param {string | null | undefined} routine The routine's name; null if it was deleted.
     */
    draw(run, newest, routine) {
      if (isAsked || !hasFailed(run)) return;
      isAsked = true;
      fill(element, section(HEADING, {}, content));
      load(run, newest, routine);
    },
  };
}

/** Tell the comparison, part by part; parts in which nothing differs are left out. */
function story(run, good, task, routine) {
  const { parameters, configs, outputs, paces } = compare(run, good);
  const parts = [
    part("Parameters", parameters.length > 0 && fields(parameters)),
    part("Task", configs.length > 0 && [h("p", {}, "Its steps were changed in between:"), fields(configs)]),
    part("Routine", revisions(run, good, task, routine)),
    part("Outputs", outputs.length > 0 && several(outputs, "outputs", output)),
    part("Time", paces.length > 0 && several(paces, "paces", paceIn(paces))),
  ].filter(Boolean);
  return [
    h("p", {}, link(["runs", task, good.trajectory_id], {}, `Run ${good.trajectory_id}`), " completed ", at(good.ended_at), ", ", ago(good.ended_at), "."),
    parts.length ? parts : h("p", {}, "Nothing differs in parameters, steps, and outputs of steps that both completed."),
  ];
}

function part(heading, content) {
  return content && h("div", {}, h("h3", {}, heading), content);
}

/** @param {import("../differences.js").Difference[]} changed */
function fields(changed) {
  const rest = changed.length - MOST_FIELDS;
  return [difference(changed.slice(0, MOST_FIELDS)), rest > 0 && h("p", { class: "hint" }, `and ${count(rest, "more field")}`)];
}

/** Say that the runs had different revisions of the routine. The service tells no revision of the first and of those forgotten. */
function revisions({ routine_revision: now }, { routine_revision: then }, task, routine) {
  if (!now || now === then) return null;
  return h("p", {}, `This run had revision ${now} of `, routine ? link(["routines", task, routine], {}, routine) : "the routine",
    then ? `, that one revision ${then}.` : ", that one an earlier one.");
}

/** List the first of them, and the others behind a line that can be opened. */
function several(all, kind, row) {
  const list = (some) => h("ul", { class: kind }, some.map(row));
  const rest = all.slice(MOST_STEPS);
  return [list(all.slice(0, MOST_STEPS)), rest.length > 0 && h("details", {}, h("summary", {}, count(rest.length, "more step")), list(rest))];
}

function output({ step, changed }) {
  return h("li", {}, h("strong", {}, step), h("div", {}, changed ? fields(changed) : h("p", { class: "quiet" }, "too large to compare")));
}

/** Show both durations of a step, as bars to the longest of all. @param {import("../comparison.js").Pace[]} paces */
function paceIn(paces) {
  const longest = Math.max(...paces.flatMap(({ now, then }) => [now, then]));
  const bar = (seconds, kind) => h("i", { class: kind, "aria-hidden": "true", css: { "--part": (seconds / longest).toFixed(3) } });
  return ({ step, status, now, then }) => h("li", {}, h("strong", {}, step),
    h("div", {}, bar(now, status), h("span", {}, status === "failed" ? `failed after ${duration(now)}` : duration(now))),
    h("div", { class: "quiet" }, bar(then, "completed"), h("span", {}, `${duration(then)} in the good run`)));
}
