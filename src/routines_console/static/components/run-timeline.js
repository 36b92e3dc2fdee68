/**
 * Show the steps of a run on a time axis: when each started, each of its tries, how long it took, its inputs and outputs. Steps
 * that were not reached stay in the list.
 */

import { empty, h } from "../dom.js";
import { duration, elapsed, now, secondsBetween } from "../time.js";
import { capital } from "../words.js";
import { answered } from "./answer.js";
import { cause } from "./cause.js";
import { json } from "./json-tree.js";
import { jsonView } from "./json-view.js";
import { badge } from "./strip.js";

/**
 * Build the timeline.
 *
 * @param {any} run
 * @param {any[]} events The run's log.
 * @param {{names: Set<string>, views: Map<string, Node>}} open The steps that are expanded, and the views of their values; kept when the
 *   run is drawn again.
 * @param {(text: string) => void} say
 * @returns {{element: Node, tick: () => void}} `tick` draws the bars of the steps again, as time has gone on.
 */
export function runTimeline(run, events, open, say) {
  const names = [...new Set([...Object.keys(run.steps), ...Object.keys(run.step_configs ?? {})])];
  if (!names.length) return { element: empty("No steps", run.started_at ? "The workflow has no steps, or none has started." : "No worker has started this run yet."), tick() {} };
  const tries = earlierTries(events);
  const tracks = new Map(names.filter((name) => run.steps[name]).map((name) => [name, track(run.steps[name], tries.get(name) ?? [])]));

  function tick() {
    const span = spanOf(run);
    for (const { bars } of tracks.values()) for (const [bar, part] of bars) place(bar, part, span);
  }

  tick();
  const items = names.map((name) => run.steps[name] ? step(name, run, tries.get(name) ?? [], tracks.get(name)?.element, open, say) : waiting(name, run));
  return { element: h("ol", { class: "timeline" }, items), tick };
}

/**
 * Return the tries of each step that failed and were followed by another, from the log.
 *
 * @returns {Map<string, {created: string, ended: string, error: string | null, number: number}[]>}
 */
function earlierTries(events) {
  const begun = new Map();
  const tries = new Map();
  for (const { event, step: name, try_number: number, at, detail } of events) {
    if (event === "step_started") begun.set(`${number} ${name}`, at);
    if (event !== "step_try_failed") continue;
    tries.set(name, [...tries.get(name) ?? [], { created: begun.get(`${number} ${name}`) ?? at, ended: at, error: detail, number }]);
  }
  return tries;
}

/** Draw a bar for each try of a step, the last one by its status. */
function track(found, tries) {
  const last = { created: found.created, ended: found.ended, seconds: found.duration_seconds };
  /** @type {[HTMLElement, {created: string | null, ended: string | null, seconds?: number | null}][]} */
  const bars = [...tries.map((each) => [h("i", { class: "failed earlier" }), each]), [h("i", { class: found.status }), last]];
  return { element: h("div", { class: "track", "aria-hidden": "true" }, bars.map(([bar]) => bar)), bars };
}

/** Return the times between which all steps lie; they end now while the run goes on. */
function spanOf(run) {
  const begin = run.started_at ? Date.parse(run.started_at) : now();
  const ends = Object.values(run.steps).map(({ ended }) => ended).concat(run.ended_at).filter(Boolean).map(Date.parse);
  const end = Math.max(run.ended_at ? begin + 1 : now(), ...ends);
  return { begin, length: Math.max(end - begin, 1) };
}

/** Give a bar its place and length. */
function place(bar, { created, ended, seconds: given }, { begin, length }) {
  const seconds = given ?? (created ? secondsBetween(created, ended) : 0);
  const from = created ? Math.max(0, (Date.parse(created) - begin) / length) : 0;
  const share = Math.max(0, Math.min(1 - from, (seconds * 1000) / length));
  bar.style.setProperty("--from", `${(from * 100).toFixed(2)}%`);
  bar.style.setProperty("--length", `${(share * 100).toFixed(2)}%`);
}

function waiting(name, run) {
  return h("li", { class: "waiting" }, h("div", { class: "step-line" }, h("strong", {}, name),
    h("span", { class: "quiet" }, run.step_configs[name]?.activity), h("span", { class: "quiet" }, notThere(name, run))));
}

/** Say why a step has no result. */
function notThere(name, run) {
  if (run.lost_steps?.includes(name)) return `kept from run ${run.kept_steps[name]}, which was deleted`;
  return run.ended_at ? "not reached" : "not started";
}

function step(name, run, tries, drawn, open, say) {
  const found = run.steps[name];
  const isActive = found.status === "running" && found.created && !found.ended;
  const took = isActive ? elapsed(found.created) : duration(found.duration_seconds ?? (found.created ? secondsBetween(found.created, found.ended) : null));
  // The page says at its top why the run failed.
  const isTold = run.error?.includes(found.error);
  const details = h("details", { open: open.names.has(name), ontoggle: () => open.names[details.open ? "add" : "delete"](name) },
    h("summary", { id: `step-${name}` },
      h("div", { class: "step-line" },
        h("strong", {}, name), h("code", { class: "quiet" }, found.activity), badge(found.status),
        found.kept_from && h("span", { class: "quiet" }, `kept from run ${found.kept_from}`),
        h("span", { class: "quiet number" }, took)),
      drawn),
    found.error && !isTold && cause(found.error, "notice bad"),
    found.tries && h("p", { class: "quiet" }, `Tried ${found.tries} times.`),
    tries.length > 0 && h("ol", { class: "tries" }, tries.map((each) => attempt(each, run, found))),
    answered(found.answer),
    values("inputs", found.inputs ?? {}), values("outputs", found.outputs));

  /** Show values, with what can be done with them unless the service has left them out for their size. */
  function values(kind, given) {
    const heading = h("h3", {}, capital(kind));
    const isThere = given && !found.truncated && Object.keys(given).length > 0;
    if (!isThere) return [heading, given === null || given === undefined ? h("p", { class: "quiet" }, "none") : json(given)];
    const key = [kind, name, found.created, found.ended].join();
    const view = open.views.get(key) ?? jsonView(given, { name: `the ${kind} of ${name}`, file: `run-${run.trajectory_id}-${name}-${kind}`, heading, say });
    open.views.set(key, view);
    return view;
  }

  return h("li", {}, details);
}

/** Show a try that failed and was followed by another. */
function attempt({ created, ended, error, number }, run, { error: last }) {
  const isSame = error && (error === last || run.error?.includes(error));
  return h("li", {}, h("span", { class: "quiet" }, `Try ${number} failed after ${duration(secondsBetween(created, ended))}`),
    isSame ? h("span", { class: "quiet" }, " for the same reason.") : error && [": ", cause(error)]);
}
