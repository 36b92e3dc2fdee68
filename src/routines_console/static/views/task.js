/**
 * Show a task: its steps, runs, statistics and routines, and a form to run it.
 */

import { IdempotencyKeys } from "../api.js";
import { address, empty, facts, fill, h, link, section, title } from "../dom.js";
import { deleteTask } from "../components/delete-task.js";
import { complaint, isDisabled } from "../components/failure.js";
import { clearErrors, focusError, showErrors } from "../components/fields.js";
import { overrides } from "../components/overrides.js";
import { runsOfTask } from "../components/runs.js";
import { steps } from "../components/steps.js";
import { duration } from "../time.js";
import { cadenceWords, count } from "../words.js";

const ROUTINES = 20;

/** Build the page. @param {import("../main.js").Context} context */
export async function task(context) {
  const { session: { api, collection }, params, signal } = context;
  const runs = runsOfTask(context, params.task);
  const [found, stats, routines] = await Promise.all([
    api.get(["tasks", collection, params.task], {}, signal),
    api.get(["db", "stats", collection, params.task], {}, signal),
    routinesOf(context),
    runs.load(),
  ]);
  const trouble = h("div", {});
  const body = h("div", {},
    h("p", { class: "crumbs" }, link(["tasks"], {}, "Tasks"), " / task"),
    h("div", { class: "headline" }, title(found.name),
      h("div", { class: "actions" },
        routines && h("a", { class: "button", href: address(["new"], { task: found.name }) }, "New routine"),
        link(["tasks", found.name, "versions"], { class: "button" }, "Versions"),
        link(["tasks", found.name, "edit"], { class: "button", id: "edit" }, "Edit task"),
        deleteTask(context, found.name, trouble))),
    trouble,
    found.description && h("p", { class: "lede" }, found.description),
    h("div", { class: "columns" },
      h("div", {},
        section("Steps", {}, steps(found.workflow)),
        section("Runs", {}, runs.element)),
      h("aside", {},
        section("Run this task", { class: "card" }, runForm(context, found)),
        section("Statistics", { class: "card" }, statistics(stats)),
        routines && section("Routines", { class: "card" }, list(routines, found.name)))));
  return { name: found.name, body };
}

/** Return the first page of its routines; null if routines are disabled. */
async function routinesOf({ session: { api, collection }, params, signal }) {
  try {
    return await api.page(["routines", collection, params.task], { limit: ROUTINES }, signal);
  } catch (error) {
    if (isDisabled(error)) return null;
    throw error;
  }
}

function list({ items, cursor }, task) {
  if (!items.length) return empty("None yet", h("a", { href: address(["new"], { task }) }, "Create one"), " to run this task on a schedule.");
  return h("ul", { class: "plain-list spaced" },
    items.map((each) => h("li", {}, link(["routines", task, each.name], {}, each.name), h("br"), h("span", { class: "quiet" }, cadenceWords(each.cadence)))),
    cursor && h("li", {}, h("a", { href: address([], { task }) }, "All routines of this task")),
    h("li", {}, h("a", { href: address(["feeds"], { task }) }, "Subscribe in a calendar")));
}

function statistics(stats) {
  if (!stats.total) return h("p", { class: "quiet" }, "It has not run yet.");
  const { durations, counts } = stats;
  const share = stats.success_rate === null ? "–" : `${(stats.success_rate * 100).toFixed(stats.success_rate === 1 ? 0 : 1)} %`;
  const others = Object.entries(counts).filter(([, number]) => number).map(([status, number]) => `${number.toLocaleString("en")} ${status}`);
  return facts([
    ["Succeeded", share],
    ["Runs", `${count(stats.total, "run")}: ${others.join(", ")}`],
    ["Median", duration(durations.p50_seconds)],
    ["95th percentile", duration(durations.p95_seconds)],
    ["Longest", duration(durations.max_seconds)],
  ]);
}

function runForm(context, found) {
  const { api, collection } = context.session;
  const keys = Object.entries(found.workflow.init_params ?? {}).map(([name, given]) => ({ name, default: given, type_hint: hint(given) }));
  const fields = overrides(keys, {}, "init_params");
  const trouble = h("div", {});
  const submit = h("button", { class: "primary" }, "Run task");
  const idempotencyKeys = new IdempotencyKeys();

  async function onsubmit(event) {
    event.preventDefault();
    if (submit.disabled) return;
    clearErrors(form);
    fill(trouble);
    const read = fields.read();
    if (!read) return focusError(form);
    submit.disabled = true;
    try {
      const started = await api.send("POST", ["run", collection, found.name], { init_params: read }, idempotencyKeys.keyFor(read));
      context.done(address(["runs", found.name, started.trajectory_id]));
    } catch (error) {
      fill(trouble, showErrors(form, error) ? null : complaint(error));
      idempotencyKeys.answered(error);
    } finally {
      submit.disabled = false;
    }
  }

  const form = h("form", { onsubmit, novalidate: true, "data-guarded": true, id: "run-task" },
    keys.length ? fields.element : h("p", { class: "quiet" }, "This task has no parameters."), trouble, submit);
  return form;
}

/** Return the JSON type of a default. @param {any} value */
function hint(value) {
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return value === null ? "string" : typeof value;
}
