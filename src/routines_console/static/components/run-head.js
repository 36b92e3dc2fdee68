/**
 * Show how a run is doing, above everything else of it: its status, its slot, why it failed, and what can be done about it.
 */

import { button, fill, h, title } from "../dom.js";
import { at, duration, elapsed, secondsBetween } from "../time.js";
import { cause } from "./cause.js";
import { complaint } from "./failure.js";
import { rerun } from "./rerun.js";
import { retries } from "./run-details.js";
import { badge } from "./strip.js";

/**
 * Build it.
 *
 * @param {import("../main.js").Context} context
 * @param {any} run
 * @param {HTMLElement} lede Where its progress is told: see `progress`.
 */
export function runHead(context, run, lede) {
  const trouble = h("div", {});
  return [
    h("div", { class: "headline" }, title(`Run ${run.trajectory_id}`),
      h("div", { class: "actions" }, !run.ended_at && button("Cancel run", (event) => cancel(context, run, trouble, event), { class: "danger", id: "cancel" }))),
    lede,
    (run.scheduled_for ?? run.fills_slot) && h("p", { class: "quiet" }, "For the slot ", at(run.scheduled_for ?? run.fills_slot)),
    retries(run),
    trouble,
    run.error && cause(run.error, "notice bad"),
    run.ended_at && rerun(context, run),
  ];
}

/** Say its status, how long it takes or took, and how far it has come. @param {any} run */
export function progress(run) {
  if (isWaitingRetry(run)) return [badge("pending", "Waits for its time"), " and then tries the slot again"];
  if (!run.started_at) return [badge(run.status), run.ended_at ? " before it started" : " and not started yet"];
  return [badge(run.status),
    run.ended_at ? ` after ${duration(secondsBetween(run.started_at, run.ended_at))}` : [" for ", elapsed(run.started_at)],
    `, ${run.completed_steps} of ${run.total_steps} steps done`];
}

/** Return whether a run is a retry that no worker has begun. */
function isWaitingRetry(run) {
  return run.trigger === "retry" && run.status === "running" && !run.started_at;
}

async function cancel({ session: { api, collection }, params: { task }, say, reload }, run, trouble, event) {
  event.currentTarget.disabled = true;
  try {
    await api.send("POST", ["trajectory", collection, task, "statuses"], { [run.trajectory_id]: "cancelled" });
    say(`Run ${run.trajectory_id} was cancelled.`);
    await reload();
  } catch (error) {
    fill(trouble, complaint(error));
  }
}
