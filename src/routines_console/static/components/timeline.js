/**
 * Show the steps of a run on a time axis: when each started, how long it took, its inputs and outputs.
 */

import { empty, h } from "../dom.js";
import { duration, elapsed, now, secondsBetween } from "../time.js";
import { answered } from "./answer.js";
import { cause } from "./cause.js";
import { json } from "./json.js";
import { badge } from "./strip.js";

/**
 * Build the timeline.
 *
 * @param {any} run
 * @param {Set<string>} open Names of the steps that the user has expanded; kept when the run is drawn again.
 * @returns {{element: Node, tick: () => void}} `tick` draws the bars of the steps again, as time has gone on.
 */
export function timeline(run, open) {
  const names = [...new Set([...Object.keys(run.steps), ...(run.ended_at ? [] : Object.keys(run.step_configs ?? {}))])];
  if (!names.length) return { element: empty("No steps", run.started_at ? "The workflow has no steps, or none has started." : "No worker has started this run yet."), tick() {} };
  const bars = new Map(names.map((name) => [name, h("i", { class: run.steps[name]?.status })]));

  function tick() {
    const span = spanOf(run);
    for (const [name, bar] of bars) if (run.steps[name]) place(bar, run.steps[name], span);
  }

  tick();
  return { element: h("ol", { class: "timeline" }, names.map((name) => step(name, run.steps[name], bars.get(name), open))), tick };
}

/** Return the times between which all steps lie; they end now while the run goes on. */
function spanOf(run) {
  const begin = run.started_at ? Date.parse(run.started_at) : now();
  const ends = Object.values(run.steps).map(({ ended }) => ended).concat(run.ended_at).filter(Boolean).map(Date.parse);
  const end = Math.max(run.ended_at ? begin + 1 : now(), ...ends);
  return { begin, length: Math.max(end - begin, 1) };
}

/** Give the bar of a step its place and length. */
function place(bar, { created, ended, duration_seconds: given }, { begin, length }) {
  const seconds = given ?? (created ? secondsBetween(created, ended) : 0);
  const from = created ? Math.max(0, (Date.parse(created) - begin) / length) : 0;
  const share = Math.max(0, Math.min(1 - from, (seconds * 1000) / length));
  bar.style.setProperty("--from", `${(from * 100).toFixed(2)}%`);
  bar.style.setProperty("--length", `${(share * 100).toFixed(2)}%`);
}

function step(name, found, bar, open) {
  if (!found) return h("li", {}, h("div", { class: "step-line" }, h("strong", {}, name), h("span", { class: "quiet" }, "not started")));
  const isActive = found.status === "running" && found.created && !found.ended;
  const took = isActive ? elapsed(found.created) : duration(found.duration_seconds ?? (found.created ? secondsBetween(found.created, found.ended) : null));
  const details = h("details", { open: open.has(name), ontoggle: () => open[details.open ? "add" : "delete"](name) },
    h("summary", { id: `step-${name}` },
      h("div", { class: "step-line" },
        h("strong", {}, name), h("code", { class: "quiet" }, found.activity), badge(found.status),
        h("span", { class: "quiet number" }, took)),
      h("div", { class: "track", "aria-hidden": "true" }, bar)),
    found.error && cause(found.error, "notice bad"),
    found.tries && h("p", { class: "quiet" }, `Tried ${found.tries} times.`),
    answered(found.answer),
    h("h3", {}, "Inputs"), json(found.inputs ?? {}),
    h("h3", {}, "Outputs"), found.outputs === null || found.outputs === undefined ? h("p", { class: "quiet" }, "none") : json(found.outputs));
  return h("li", {}, details, found.error && !open.has(name) ? cause(found.error) : null);
}
