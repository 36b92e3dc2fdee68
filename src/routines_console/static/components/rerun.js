/**
 * Run an ended run again: whole, or from a step, with the same parameters or changed ones.
 */

import { IdempotencyKeys } from "../api.js";
import { address, fill, h } from "../dom.js";
import { count } from "../words.js";
import { complaint } from "./failure.js";
import { clearErrors, field, focusError, showError, showErrors } from "./fields.js";

/**
 * Build the form.
 *
 * @param {import("../main.js").Context} context
 * @param {any} run
 */
export function rerun(context, run) {
  const { session: { api, collection }, params: { task }, say, done } = context;
  const keys = new IdempotencyKeys();
  const from = h("select", { id: "rerun-from" }, choices(run).map(({ step, text }) => h("option", { value: step, selected: run.steps[step]?.status === "failed" }, text)));
  const given = h("textarea", { id: "rerun-params", rows: 4, class: "code", spellcheck: "false" }, JSON.stringify(run.init_params, null, 2));
  const trouble = h("div", {});

  async function onsubmit(event) {
    event.preventDefault();
    if (form.hasAttribute("aria-busy")) return;
    clearErrors(form);
    fill(trouble);
    const params = changed(run.init_params, given.value);
    if (!params) {
      showError(form, "init_params", "must be a JSON object");
      return focusError(form);
    }
    form.setAttribute("aria-busy", "true");
    const body = { ...from.value ? { from_step: from.value } : {}, init_params: params };
    try {
      const started = await api.send("POST", ["rerun", collection, task, run.trajectory_id], body, keys.keyFor(body));
      say(`Run ${run.trajectory_id} was started again.`);
      done(address(["runs", task, started.trajectory_id]));
    } catch (error) {
      fill(trouble, showErrors(form, error) ? null : complaint(error));
      keys.answered(error);
    } finally {
      form.removeAttribute("aria-busy");
    }
  }

  const form = h("form", { onsubmit, novalidate: true, "data-guarded": true },
    field("from_step", "From", from, "Steps before it are not executed again: their results are kept from this run."),
    field("init_params", "Parameters", given, "What you leave as it is stays as it was. Secrets are taken anew."),
    trouble, h("div", { class: "actions end" }, h("button", { class: "primary", id: "rerun" }, "Run again")));
  return h("details", { class: "rerun", id: "run-again" }, h("summary", {}, "Run again"), form);
}

/** Return the steps from which it can run: the first, and each whose earlier steps have all completed. */
function choices({ steps, step_configs: configs }) {
  const names = [...new Set([...Object.keys(steps), ...Object.keys(configs ?? {})])];
  const unfinished = names.findIndex((name) => steps[name]?.status !== "completed");
  const last = unfinished < 0 ? names.length - 1 : unfinished;
  return [{ step: "", text: "The first step" },
    ...names.slice(1, last + 1).map((name, index) => ({ step: name, text: `${name}, keeping ${count(index + 1, "step")}` }))];
}

/** Return the parameters whose values differ; null if the text is no JSON object. @param {any} before @param {string} text */
function changed(before, text) {
  let after;
  try {
    after = JSON.parse(text);
  } catch {
    return null;
  }
  if (after === null || typeof after !== "object" || Array.isArray(after)) return null;
  return Object.fromEntries(Object.entries(after).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));
}
