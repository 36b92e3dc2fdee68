/**
 * Decide how a routine is doing: whether it needs attention, and why. What is wrong with it the service says (`troubles_of` in
 * sql/schema/12_troubles.sql); for people at psql, the view `routine_status` goes by the same.
 *
 * @typedef {object} Health
 * @property {"attention" | "running" | "other" | "well" | "silent" | "paused"} group `other`: skipped or cancelled;
 *   `silent`: has not run yet.
 * @property {number} rank Sorts a list; the routines that need attention most have the lowest rank.
 * @property {string} kind What decided, a key of `KINDS`; empty if there is nothing.
 * @property {string} words What people read.
 * @property {string[]} causes Why it needs attention, each in a sentence.
 * @property {number | null} run The run that decided; null if there is none.
 * @property {string | null} at When it happened; null if nothing has.
 * @property {boolean} [isSeen] Whether it needs attention, and the user has seen that.
 */

import { now, written } from "./time.js";
import { capital, KINDS, kindOf, skipSentence } from "./words.js";

/** How late a slot may be before the routine needs attention, in milliseconds. */
const LATE_MILLISECONDS = 60_000;
/** @type {Record<string, {group: Health["group"], rank: number}>} */
const GROUPS = {
  running: { group: "running", rank: 8 }, pending: { group: "running", rank: 8 },
  completed: { group: "well", rank: 10 }, archived: { group: "well", rank: 10 },
};
/** @type {{group: Health["group"], rank: number}} */
const OTHER = { group: "other", rank: 9 };
const TROUBLES = ["failed_to_start", "failed", "backoff", "missed", "slow", "webhook"];

/**
 * Return the health of a routine.
 *
 * @param {any} routine
 * @param {any} recent Its latest outcomes; null if they are not known.
 * @returns {Health}
 */
export function healthOf(routine, recent) {
  const outcome = recent?.outcomes[0] ?? null;
  const last = {
    run: outcome && (outcome.last_trajectory_id ?? outcome.trajectory_id ?? outcome.blocking_trajectory_id),
    at: outcome && (outcome.ended_at ?? outcome.recorded_at),
  };
  if (recent?.paused_reason) {
    // The reason names the last failure.
    return { group: "attention", rank: 0, kind: "failed_to_start", words: "Paused by the scheduler", causes: [capital(recent.paused_reason) ?? ""], ...last };
  }
  const overdue = overdueSentence(routine);
  if (overdue) return { group: "attention", rank: 1, kind: "missed", words: "Overdue", causes: [overdue], ...last };
  if (routine.paused) return { group: "paused", rank: 12, kind: "paused", words: "Paused", causes: [], ...last };
  const troubles = recent?.troubles ?? [];
  if (troubles.length) {
    const [{ kind, trajectory_id: run, since: at }] = troubles;
    return { group: "attention", rank: 2 + TROUBLES.indexOf(kind), kind, words: KINDS[kind] ?? kind, causes: troubles.map(troubleSentence), run, at };
  }
  if (!outcome) return { group: "silent", rank: 11, kind: "", words: "Has not run yet", causes: [], ...last };
  const kind = kindOf(outcome);
  return { ...GROUPS[kind] ?? OTHER, kind, words: KINDS[kind] ?? kind, causes: [], ...last };
}

/** Say that a slot, or the end of a pause, waits for a ticker; null if none does. */
function overdueSentence({ next_run_at: slot, paused_until: end }) {
  if (isLate(slot)) return `Due since ${written(slot)}, but no ticker has picked it up. Is a ticker running?`;
  if (isLate(end)) return `Its pause was over at ${written(end)}, but no ticker has resumed it. Is a ticker running?`;
  return null;
}

function isLate(time) {
  return Boolean(time) && Date.parse(time) < now() - LATE_MILLISECONDS;
}

/** Say what is wrong. @param {{kind: string, detail: string | null}} trouble */
function troubleSentence({ kind, detail }) {
  switch (kind) {
    case "failed": return detail ?? "The run failed";
    case "missed":
    case "failed_to_start": return skipSentence({ reason: kind, detail });
    default: return readable(capital(detail) ?? "");
  }
}

/** Write the times in a sentence of the service as the console writes times. */
function readable(sentence) {
  return sentence.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, written);
}
