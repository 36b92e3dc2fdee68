/**
 * List runs, newest first, page by page: those of a routine by cursor, those of a task by page number.
 */

import { button, empty, fill, h, link } from "../dom.js";
import { ago, duration, secondsBetween, when } from "../time.js";
import { complaint } from "./failure.js";
import { badge } from "./strip.js";

const PAGE = 10;
const TRIGGERS = { schedule: "on schedule", "run-now": "run now", api: "through the API", retry: "retry" };

/**
 * Build the list of the runs of a routine; call `load` to fill it.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The routine's path in the API.
 * @param {string} task
 */
export function runs({ session: { api }, signal }, path, task) {
  return pages(task, signal, async (cursor) => {
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
  const status = h("select", { id: "status", onchange: () => list.load() },
    h("option", { value: "" }, "Any status"),
    ["running", "pending", "completed", "failed", "cancelled", "archived"].map((name) => h("option", { value: name }, name)));
  const list = pages(task, signal, async (number) => {
    const query = { limit: PAGE, page: number ?? 1, status: status.value };
    const page = await api.get(["db", "trajectories", collection, task], query, signal);
    return { items: page.trajectories, next: page.has_more ? page.page + 1 : null };
  });
  list.element.prepend(h("div", { class: "filters small" }, h("label", { class: "unseen", for: "status" }, "Status"), status));
  return list;
}

function pages(task, signal, read) {
  const rows = h("ol", { class: "runs" });
  const foot = h("div", {});

  async function load(from = null) {
    try {
      const { items, next } = await read(from);
      const shown = items.map((each) => row(each, task));
      if (from) rows.append(...shown);
      else fill(rows, shown);
      fill(foot, rows.children.length === 0 && empty("No runs", "Runs appear here as soon as there are any."),
        next && button("Older runs", () => load(next)));
    } catch (error) {
      if (!signal.aborted) fill(foot, complaint(error));
    }
  }

  return { element: h("div", {}, rows, foot), load };
}

function row(run, task) {
  return h("li", {},
    h("div", {}, link(["runs", task, run.trajectory_id], { class: "name" }, `Run ${run.trajectory_id}`)),
    h("div", {}, badge(run.status)),
    h("div", { class: "story" }, when(run.created_at), h("span", { class: "quiet" }, `, ${TRIGGERS[run.trigger] ?? run.trigger}`),
      run.error && h("span", { class: "cause" }, run.error)),
    h("div", { class: "quiet number" }, run.started_at && run.ended_at ? duration(secondsBetween(run.started_at, run.ended_at)) : ago(run.started_at, "not started")));
}
