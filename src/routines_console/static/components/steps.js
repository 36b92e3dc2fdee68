/**
 * Show a workflow: its steps in order, and where each takes its inputs from.
 */

import { empty, h } from "../dom.js";
import { json } from "./json-tree.js";

/** Build the list of steps. @param {any} workflow */
export function steps(workflow) {
  const names = workflow.steps ?? [];
  if (!names.length) return empty("No steps", "A run of this task completes at once.");
  return h("ol", { class: "workflow" }, names.map((name) => step(name, workflow.step_configs?.[name] ?? {})));
}

function step(name, { activity, ...parameters }) {
  const entries = Object.entries(parameters);
  return h("li", { id: `step-${name}` },
    h("div", { class: "step-head" }, h("strong", {}, name), " ", h("code", { class: "quiet" }, activity ?? "")),
    entries.length > 0 && h("dl", { class: "parameters" }, entries.map(([key, given]) => parameter(key, given))));
}

function parameter(key, given) {
  const isReference = key.endsWith("_path");
  const shown = isReference ? references(given) : json(given, 1);
  return h("div", {}, h("dt", {}, isReference ? key.slice(0, -"_path".length) : key), h("dd", {}, isReference && h("span", { class: "from" }, "from "), shown));
}

function references(given) {
  if (typeof given === "string") return h("code", { class: "reference wrap" }, given);
  return Array.isArray(given) ? given.map((each, index) => [index > 0 && ", ", references(each)]) : json(given, 1);
}
