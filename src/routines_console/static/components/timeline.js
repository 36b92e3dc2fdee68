/**
 * Show the steps of a run on a time axis: when each started, how long it took, its inputs and outputs.
 */

import { empty, h } from "../dom.js";
import { duration, now, secondsBetween } from "../time.js";
import { answered } from "./answer.js";
import { json } from "./json.js";
import { badge } from "./strip.js";

/**
 * Build the timeline.
 *
 * @param {any} run
 * @param {Set<string>} open Names of the steps that the user has expanded; kept when the run is drawn again.
 */
export function timeline(run, open) {
  const names = [...new Set([...Object.keys(run.steps), ...(run.ended_at ? [] : Object.keys(run.step_configs ?? {}))])];
  if (!names.length) return empty("No steps", run.started_at ? "The workflow has no steps, or none has started." : "No worker has started this run yet.");
  const begin = run.started_at ? Date.parse(run.started_at) : now();
  const ends = names.map((name) => run.steps[name]?.ended).concat(run.ended_at).filter(Boolean).map(Date.parse);
  const end = Math.max(run.ended_at ? begin + 1 : now(), ...ends);
  return h("ol", { class: "timeline" }, names.map((name) => step(name, run.steps[name], { begin, length: end - begin }, open)));
}

function step(name, found, span, open) {
  if (!found) return h("li", {}, h("div", { class: "step-line" }, h("strong", {}, name), h("span", { class: "quiet" }, "not started")));
  const seconds = found.duration_seconds ?? (found.created ? secondsBetween(found.created, found.ended) : null);
  const details = h("details", { open: open.has(name), ontoggle: () => open[details.open ? "add" : "delete"](name) },
    h("summary", { id: `step-${name}` },
      h("div", { class: "step-line" },
        h("strong", {}, name), h("code", { class: "quiet" }, found.activity), badge(found.status),
        h("span", { class: "quiet number" }, duration(seconds))),
      h("div", { class: "track", "aria-hidden": "true" }, bar(found, seconds, span))),
    found.error && h("p", { class: "notice bad" }, found.error),
    found.tries && h("p", { class: "quiet" }, `Tried ${found.tries} times.`),
    answered(found.answer),
    h("h3", {}, "Inputs"), json(found.inputs ?? {}),
    h("h3", {}, "Outputs"), found.outputs === null || found.outputs === undefined ? h("p", { class: "quiet" }, "none") : json(found.outputs));
  return h("li", {}, details, found.error && !open.has(name) ? h("p", { class: "cause" }, found.error) : null);
}

function bar(found, seconds, { begin, length }) {
  const from = found.created ? Math.max(0, (Date.parse(found.created) - begin) / length) : 0;
  const share = Math.min(1 - from, ((seconds ?? 0) * 1000) / length);
  return h("i", { class: found.status, css: { "--from": `${(from * 100).toFixed(2)}%`, "--length": `${(Math.max(share, 0) * 100).toFixed(2)}%` } });
}
