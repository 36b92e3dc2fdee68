/**
 * Cancel the active runs of routines.
 */

import { count } from "../words.js";
import { effect, nameOf, newestRuns, parted } from "./actions.js";

/**
 * @param {import("../session.js").Session} session
 * @param {import("../fleet.js").Entry[]} entries
 * @returns {import("./actions.js").Action}
 */
export function cancelAll(session, entries) {
  /** @type {Map<number, any[]>} The active runs of each routine. */
  let active = new Map();
  const runsOf = ({ routine }) => active.get(routine.id) ?? [];

  const job = ({ routine }, { trajectory_id: run }) => ({
    routine,
    run: `Run ${run}`,
    // The service refuses to cancel a run that has ended, so there is nothing to look at before.
    check: async () => null,
    send: async (patience) => {
      await session.api.send("POST", ["trajectory", session.collection, routine.task_name, "statuses"], { [run]: "cancelled" }, undefined, patience);
      return { text: "Cancelled.", run };
    },
  });

  return {
    heading: `Cancel the runs of ${count(entries.length, "routine")}`,
    fields: [],
    async look(signal, told) {
      const runs = await newestRuns(session, entries, signal, told);
      active = new Map([...runs].map(([id, found]) => [id, found.filter((run) => !run.ended_at)]));
    },
    plan() {
      const [busy, idle] = parted(entries, (entry) => runsOf(entry).length > 0);
      const jobs = busy.flatMap((entry) => runsOf(entry).map((run) => job(entry, run)));
      return {
        effects: [
          ...jobs.length ? [/** @type {[string, string[]]} */ ([`${count(jobs.length, "run")} of ${count(busy.length, "routine")} will be cancelled. This cannot be undone.`,
            jobs.map(({ routine, run }) => `${nameOf(routine)}, ${run}`)])] : [],
          effect(idle, "has no active run.", "have no active run."),
        ].filter((each) => each !== null),
        notes: ["The routines themselves go on: their next slots start new runs."],
        jobs,
        verb: `Cancel ${count(jobs.length, "run")}`,
        words: { doing: "Cancelling", done: "cancelled" },
        isFinal: true,
      };
    },
  };
}
