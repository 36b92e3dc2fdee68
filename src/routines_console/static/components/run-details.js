/**
 * Show where a run comes from, and what else is known of it.
 */

import { address, facts, h, link } from "../dom.js";
import { at, when } from "../time.js";

const TRIGGERS = { schedule: "the schedule", "run-now": "Run now", api: "the API", retry: "a failed run", rerun: "a rerun", backfill: "a backfill" };

/**
 * Link to a run of any task.
 *
 * @param {string} name collection/task
 * @param {number} id
 * @param {string} [text]
 */
export function runLink(name, id, text) {
  const task = name.split("/")[1];
  return link(["runs", task, id], {}, text ?? `Run ${id} of ${task}`);
}

/**
 * Show the way back: from a child to its parent, from any other run to its routine and its task.
 *
 * @param {any} run
 * @param {string} task
 * @param {string | null | undefined} routine The routine's name; null if it was deleted, undefined while it is not known.
 */
export function crumbs(run, task, routine) {
  const parent = run.parent_trajectory_id && [" / ", runLink(run.parent_name, run.parent_trajectory_id, `run ${run.parent_trajectory_id}`)];
  const [, first] = parent ? run.parent_name.split("/") : [null, task];
  return [link(["tasks", first], {}, first), parent, routine && [" / ", link(["routines", task, routine], {}, routine)], parent ? " / child run" : " / run"];
}

/** Name the run that this one retries, and the run that retries this one; null if there is neither. @param {any} run */
export function retries(run) {
  if (!run.retry_of && !run.rerun_of && !run.retried_by) return null;
  return h("p", {},
    run.rerun_of && ["Runs ", runLink(run.name, run.rerun_of, `run ${run.rerun_of}`), " again. "],
    run.retry_number && [`Retry ${run.retry_number} of `, runLink(run.name, run.retry_of, `run ${run.retry_of}`), ", which failed. "],
    run.retried_by && [run.status === "failed" ? "It failed and was " : "It was ", runLink(run.name, run.retried_by, `retried by run ${run.retried_by}`), "."]);
}

/**
 * Build the list.
 *
 * @param {any} run
 * @param {string} task
 * @param {string | null | undefined} routine As for `crumbs`.
 */
export function runDetails(run, task, routine) {
  const byRoutine = run.triggered_by_routine_id;
  const slot = run.scheduled_for ?? run.fills_slot;
  /** @type {any[]} */
  const rows = [
    ["Started by", trigger(run, task, routine)],
    byRoutine ? ["Routine", routine ? routineLinks(task, routine) : routine === null ? `${byRoutine} (deleted)` : byRoutine] : null,
    run.routine_revision ? ["Revision", `${run.routine_revision} of the routine`] : null,
    slot ? ["Slot", routine ? h("a", { href: address(["routines", task, routine], { slot }) }, at(slot)) : at(slot)] : null,
    run.temporal_url ? ["Temporal", h("a", { href: run.temporal_url, rel: "noreferrer" }, "Open in Temporal")] : null,
    ["Created", when(run.created_at)],
    ["Started", when(run.started_at, "not yet")],
    ["Ended", when(run.ended_at, "not yet")],
    ["Webhook", run.webhook_url ? h("code", { class: "wrap" }, run.webhook_url) : "none"],
    ["Workflow ID", h("code", { class: "wrap" }, run.workflow_id)],
  ];
  return facts(rows.filter(Boolean));
}

function routineLinks(task, name) {
  return [link(["routines", task, name], {}, name), " · ",
    link(["routines", task, name, "edit"], { id: "edit" }, "Edit", h("span", { class: "unseen" }, " the routine"))];
}

/** Say what started a run; a child says "API" in the API. */
function trigger(run, task, routine) {
  if (run.parent_trajectory_id) return ["a step of ", runLink(run.parent_name, run.parent_trajectory_id)];
  if (run.backfill_id && routine) return link(["routines", task, routine, "gaps"], {}, `Backfill ${run.backfill_id}`);
  return TRIGGERS[run.trigger] ?? run.trigger;
}
