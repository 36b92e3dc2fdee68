/**
 * Run again what failed of routines since a time.
 */

import { IdempotencyKeys } from "../api.js";
import { h } from "../dom.js";
import { written } from "../time.js";
import { count } from "../words.js";
import { effect, nameOf, newestRuns, parted, pathOf } from "./actions.js";

const MOST_ROUTINES = 10_000;
/** How many of the newest runs are looked at just before one is started. */
const LATEST = 20;

/**
 * @param {import("../session.js").Session} session
 * @param {import("../fleet.js").Entry[]} entries
 * @param {string} from
 * @returns {import("./actions.js").Action}
 */
export function rerunAll(session, entries, from) {
  /** @type {Map<number, any[]>} The newest runs of each routine that had a failure. */
  let runs = new Map();
  const each = h("input", { type: "checkbox", id: "bulk-each" });
  const beside = h("input", { type: "checkbox", id: "bulk-beside" });
  const choices = [each, beside].map((input) => h("label", { class: "toggle", hidden: true }, input, h("span", {})));
  const failedOf = ({ routine }) => lastAttempts(runs.get(routine.id) ?? []).filter((run) => hasFailed(run, from));
  const isActive = ({ routine }) => isFull(routine, (runs.get(routine.id) ?? []).filter((run) => !run.ended_at));

  function offer(choice, text) {
    choice.hidden = !text;
    choice.querySelector("span").textContent = text;
  }

  async function look(signal, told) {
    const failed = await failing(session, from, signal);
    const [wanted, others] = parted(entries, ({ routine, recent }) =>
      failed.has(routine.id) || (recent?.troubles ?? []).some(({ kind }) => kind === "failed"));
    runs = await newestRuns(session, wanted, signal, (read) => told(read + others.length));
    const several = entries.filter((entry) => failedOf(entry).length > 1);
    const busy = entries.filter((entry) => failedOf(entry).length && isActive(entry));
    offer(choices[0], several.length && `Not only the newest failed run of each routine, but all ${sum(entries, failedOf)}: those of one routine then go side by side`);
    offer(choices[1], busy.length && `Also of ${count(busy.length, "routine")} with a run going on, beside that run`);
  }

  return {
    heading: `Run again what failed of ${count(entries.length, "routine")}`,
    fields: choices,
    look,
    plan() {
      const [bad, good] = parted(entries, (entry) => failedOf(entry).length > 0);
      const [busy, idle] = parted(bad, (entry) => isActive(entry) && !beside.checked);
      const job = jobs(session, beside.checked);
      const wanted = idle.flatMap((entry) => failedOf(entry).slice(0, each.checked ? undefined : 1).map((run) => job(entry, run)));
      return {
        effects: [
          ...wanted.length ? [/** @type {[string, string[]]} */ ([`${count(wanted.length, "failed run")} of ${count(idle.length, "routine")} will be run again.`,
            wanted.map(({ routine, run }) => `${nameOf(routine)}, ${run}`)])] : [],
          effect(busy, "has a run going on, and is left out.", "have a run going on, and are left out."),
          effect(good, `has no failed run since ${written(from)}.`, `have no failed run since ${written(from)}.`),
        ].filter((told) => told !== null),
        notes: ["Each runs from its first step, with the parameters that it had."],
        jobs: wanted,
        verb: `Run ${wanted.length.toLocaleString("en")} again`,
        words: { doing: "Running again", done: "started again" },
      };
    },
  };
}

/** Return the builder of the jobs of one plan, which know of each other's runs. */
function jobs(session, isBeside) {
  /** @type {Set<number>} Runs that the jobs have started. */
  const ours = new Set();
  return ({ routine }, { trajectory_id: id, retry_of: first = id }) => {
    const keys = new IdempotencyKeys();
    return {
      routine,
      run: `Run ${id}`,
      async check(patience) {
        const found = await session.api.get([...pathOf(session, routine), "runs"], { limit: LATEST }, patience.signal, patience);
        const successor = found.find((run) => run.retry_of === first && run.trajectory_id > id);
        if (successor) return { text: "Was run again already.", run: successor.trajectory_id };
        const active = found.filter((run) => !run.ended_at && !ours.has(run.trajectory_id));
        if (isBeside || !isFull(routine, active)) return null;
        const [{ trajectory_id: run }] = active;
        return { text: `Run ${run} is going on, so it was not run again.`, run };
      },
      async send(patience) {
        try {
          const { trajectory_id: run } = await session.api.send("POST", ["rerun", session.collection, routine.task_name, id], undefined, keys.keyFor(null), patience);
          ours.add(run);
          return { text: "Goes again.", run };
        } catch (error) {
          keys.answered(error);
          throw error;
        }
      },
    };
  };
}

/** Return the last attempt of each run: retries and reruns name the first. @param {any[]} runs Newest first. */
function lastAttempts(runs) {
  const seen = new Set();
  return runs.filter(({ trajectory_id: id, retry_of: first = id }) => !seen.has(first) && seen.add(first));
}

function hasFailed({ status, scheduled_for: slot, created_at: created }, from) {
  return status === "failed" && Date.parse(slot ?? created) >= Date.parse(from);
}

/** Return whether as many runs of a routine are active as may be at once. */
function isFull({ max_concurrent: most }, active) {
  return active.length >= (most ?? 1);
}

/** Return the ids of the routines of which slots since a time failed. */
async function failing({ api, collection }, from, signal) {
  const ids = new Set();
  let cursor = null;
  do {
    const page = await api.page(["report", collection], { from, limit: MOST_ROUTINES, cursor }, signal);
    for (const { routine_id: id, failed } of page.items.routines) if (failed) ids.add(id);
    cursor = page.cursor;
  } while (cursor);
  return ids;
}

function sum(entries, listOf) {
  return entries.reduce((total, entry) => total + listOf(entry).length, 0);
}
