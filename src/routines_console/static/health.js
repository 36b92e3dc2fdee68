/**
 * Decide how a routine is doing: whether it needs attention, and why. For people at psql, the view `routine_status` decides the same.
 *
 * @typedef {object} Health
 * @property {"attention" | "running" | "other" | "well" | "silent" | "paused"} group `other`: skipped or cancelled;
 *   `silent`: has not run yet.
 * @property {number} rank Sorts a list; the routines that need attention most have the lowest rank.
 * @property {string} kind The kind of outcome that decided, a key of `KINDS`; empty if there is none.
 * @property {string} words What people read.
 * @property {string | null} cause Why it needs attention, in a sentence; null if nothing is wrong.
 * @property {any} outcome The latest outcome; null if there is none.
 */

import { now, utc } from "./time.js";
import { capital, KINDS, kindOf, skipSentence } from "./words.js";

/** How late a slot may be before the routine needs attention, in milliseconds. */
const LATE_MILLISECONDS = 60_000;
/** @type {Record<string, {group: Health["group"], rank: number}>} */
const GROUPS = {
  running: { group: "running", rank: 6 }, pending: { group: "running", rank: 6 },
  completed: { group: "well", rank: 8 }, archived: { group: "well", rank: 8 },
};
/** @type {{group: Health["group"], rank: number}} */
const OTHER = { group: "other", rank: 7 };
const TROUBLES = ["failed_to_start", "failed", "backoff", "missed"];

/**
 * Return the health of a routine.
 *
 * @param {any} routine
 * @param {any} recent Its latest outcomes; null if they are not known.
 * @returns {Health}
 */
export function healthOf(routine, recent) {
  const outcome = recent?.outcomes[0] ?? null;
  const kind = outcome ? kindOf(outcome) : "";
  const cause = outcome ? causeOf(outcome) : null;
  if (recent?.paused_reason) {
    return { group: "attention", rank: 0, kind: "failed_to_start", words: "Paused by the scheduler",
             cause: `${capital(recent.paused_reason)}${cause ? `. ${cause}` : ""}`, outcome };
  }
  if (routine.next_run_at && Date.parse(routine.next_run_at) < now() - LATE_MILLISECONDS) {
    return { group: "attention", rank: 1, kind: "missed", words: "Overdue", outcome,
             cause: `Due since ${utc(routine.next_run_at)} UTC, but no ticker has picked it up. Is a ticker running?` };
  }
  if (routine.paused_until && Date.parse(routine.paused_until) < now() - LATE_MILLISECONDS) {
    return { group: "attention", rank: 1, kind: "missed", words: "Overdue", outcome,
             cause: `Its pause was over at ${utc(routine.paused_until)} UTC, but no ticker has resumed it. Is a ticker running?` };
  }
  if (routine.paused) return { group: "paused", rank: 10, kind: "paused", words: "Paused", cause: null, outcome };
  if (TROUBLES.includes(kind)) {
    return { group: "attention", rank: 2 + TROUBLES.indexOf(kind), kind, words: KINDS[kind], cause, outcome };
  }
  if (!outcome) return { group: "silent", rank: 9, kind: "", words: "Has not run yet", cause: null, outcome };
  return { ...GROUPS[kind] ?? OTHER, kind, words: KINDS[kind] ?? kind, cause, outcome };
}

/** Say what went wrong with an outcome, or return null if nothing did. @param {any} outcome */
function causeOf(outcome) {
  if (outcome.outcome === "skipped") return skipSentence(outcome);
  return outcome.status === "failed" ? outcome.error ?? "The run failed" : null;
}
