/**
 * List runs, newest first, page by page: those of a routine by cursor, those of a task by page number.
 */

import { empty, h, link } from "../dom.js";
import { ago, at, duration, secondsBetween, when } from "../time.js";
import { cause } from "./cause.js";
import { pages } from "./pages.js";
import { badge } from "./strip.js";

const PAGE = 10;
const TRIGGERS = { schedule: "on schedule", "run-now": "run now", api: "through the API", backfill: "by a backfill" };

/**
 * Build the list of the runs of a routine; call `load` to fill it.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The routine's path in the API.
 * @param {string} task
 */
export function runs({ session: { api }, signal }, path, task) {
  return list(task, signal, async (cursor) => {
    const page = await api.page([...path, "runs"], { limit: PAGE, cursor }, signal);
    return { items: page.items, next: page.cursor };
  });
}

/**
 * Build the list of the runs of a task; call `load` to fill it.
 *
 * @param {import("../main.js").Context} context
 * @param {string} task
 */
export function runsOfTask({ session: { api, collection }, signal }, task) {
  const status = h("select", { id: "status", onchange: () => found.load() },
    h("option", { value: "" }, "Any status"),
    ["running", "pending", "completed", "failed", "cancelled", "archived"].map((name) => h("option", { value: name }, name)));
  const found = list(task, signal, async (number) => {
    const query = { limit: PAGE, page: number ?? 1, status: status.value };
    const page = await api.get(["db", "trajectories", collection, task], query, signal);
    return { items: page.trajectories, next: page.has_more ? page.page + 1 : null };
  });
  found.element.prepend(h("div", { class: "filters small" }, h("label", { class: "unseen", for: "status" }, "Status"), status));
  return found;
}

function list(task, signal, read) {
  const nothing = () => empty("No runs", "Runs appear here as soon as there are any.");
  return pages({ kind: "runs", read, row: (run) => row(run, task), nothing, more: "Older runs" }, signal);
}

function row(run, task) {
  return h("li", {},
    h("div", {}, link(["runs", task, run.trajectory_id], { class: "name" }, `Run ${run.trajectory_id}`)),
    h("div", {}, badge(run.status)),
    h("div", { class: "story" }, when(run.created_at), h("span", { class: "quiet" }, ", ", started(run, task)),
      run.retried_by && [" ", link(["runs", task, run.retried_by], {}, `Retried by run ${run.retried_by}`)],
      run.error && cause(run.error)),
    h("div", { class: "quiet number" }, run.started_at && run.ended_at ? duration(secondsBetween(run.started_at, run.ended_at)) : ago(run.started_at, "not started")));
}

/** Say what started a run. */
function started(run, task) {
  if (run.retry_number) return [`retry ${run.retry_number} of `, link(["runs", task, run.retry_of], {}, `run ${run.retry_of}`)];
  if (run.rerun_of && run.trigger === "rerun") return ["rerun of ", link(["runs", task, run.rerun_of], {}, `run ${run.rerun_of}`)];
  if (run.parent_trajectory_id) {
    return ["by a step of ", link(["runs", run.parent_name.split("/")[1], run.parent_trajectory_id], {}, `run ${run.parent_trajectory_id}`)];
  }
  if (run.fills_slot) return [TRIGGERS.backfill, ", for the slot ", at(run.fills_slot)];
  return TRIGGERS[run.trigger] ?? run.trigger;
}
