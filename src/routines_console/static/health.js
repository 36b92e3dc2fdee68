/**
 * Where a routine stands: whether somebody should look at it, and why.
 *
 * @typedef {object} Standing
 * @property {"attention" | "running" | "other" | "well" | "silent" | "paused"} group `other`: skipped or cancelled.
 * @property {number} rank What needs a look most comes first.
 * @property {string} kind The outcome that decides.
 * @property {string} words
 * @property {string | null} cause Why, in a sentence; null: nothing is wrong.
 * @property {any} outcome The newest one; null: there is none.
 */

import { now, utc } from "./time.js";
import { capital, KINDS, kindOf, skipSentence } from "./words.js";

/** How late a slot may be before somebody should look, in milliseconds. */
const LATE = 60_000;
/** @type {Record<string, {group: Standing["group"], rank: number}>} */
const GROUPS = {
  running: { group: "running", rank: 5 }, pending: { group: "running", rank: 5 },
  completed: { group: "well", rank: 7 }, archived: { group: "well", rank: 7 },
};
/** @type {{group: Standing["group"], rank: number}} */
const OTHER = { group: "other", rank: 6 };
const TROUBLES = ["failed_to_start", "failed", "missed"];

/**
 * @param {any} routine
 * @param {any} recent Its latest outcomes; null: not known.
 * @returns {Standing}
 */
export function standing(routine, recent) {
  const outcome = recent?.outcomes[0] ?? null;
  const kind = outcome ? kindOf(outcome) : "";
  const cause = outcome ? causeOf(outcome) : null;
  if (recent?.paused_reason) {
    return { group: "attention", rank: 0, kind: "failed_to_start", words: "Paused by the scheduler",
             cause: `${capital(recent.paused_reason)}${cause ? `. ${cause}` : ""}`, outcome };
  }
  if (routine.next_run_at && Date.parse(routine.next_run_at) < now() - LATE) {
    return { group: "attention", rank: 1, kind: "missed", words: "Overdue", outcome,
             cause: `Due since ${utc(routine.next_run_at)} UTC, and no ticker has come: does one run?` };
  }
  if (routine.paused) return { group: "paused", rank: 9, kind: "paused", words: "Paused", cause: null, outcome };
  if (TROUBLES.includes(kind)) {
    return { group: "attention", rank: 2 + TROUBLES.indexOf(kind), kind, words: KINDS[kind], cause, outcome };
  }
  if (!outcome) return { group: "silent", rank: 8, kind: "", words: "Has not run yet", cause: null, outcome };
  return { ...GROUPS[kind] ?? OTHER, kind, words: KINDS[kind] ?? kind, cause, outcome };
}

/** Why an outcome is not as it should be; null: it is. @param {any} outcome */
export function causeOf(outcome) {
  if (outcome.outcome === "skipped") return skipSentence(outcome);
  return outcome.status === "failed" ? outcome.error ?? "The run failed" : null;
}
