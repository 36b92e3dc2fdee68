/**
 * Compare what was before a change with what was after it, and say what restoring a revision would change.
 *
 * @typedef {[string, any, any]} Difference A field, its value before and after; undefined where it was not set.
 */

import { cadenceWords } from "./words.js";

/** Fields that a restore leaves as they are. */
const KEPT = ["name", "task_name", "paused", "paused_reason", "paused_until", "paused_note"];

/**
 * Return the fields that differ. Of two objects, those fields of them that differ: a change of one parameter is no change of all.
 *
 * @param {Record<string, any>} before
 * @param {Record<string, any>} after
 * @param {string} [within] The path of the two objects.
 * @returns {Difference[]}
 */
export function differences(before, after, within = "") {
  return keysOf(before, after).flatMap((key) => {
    const [earlier, later] = [before[key], after[key]];
    if (isSame(earlier, later)) return [];
    const path = within + key;
    if (path === "cadence" && earlier && later && cadenceWords(earlier) !== cadenceWords(later)) {
      return [/** @type {Difference} */ ([path, cadenceWords(earlier), cadenceWords(later)])];
    }
    if (isObject(earlier) && isObject(later)) return differences(earlier, later, `${path}.`);
    return [/** @type {Difference} */ ([path, earlier, later])];
  });
}

/**
 * Return what restoring a revision would change of the routine as it is now, and which secrets it could not bring back.
 *
 * @param {any[]} entries The changes of the routine, newest first, at least those after the revision.
 * @param {number} revision
 */
export function restoring(entries, revision) {
  /** @type {Record<string, any>} */
  const now = {};
  /** @type {Record<string, any>} */
  const then = {};
  for (const { before, after } of entries.filter((entry) => entry.revision > revision)) {
    for (const key of keysOf(before, after)) {
      if (!(key in now)) now[key] = after[key];
      then[key] = before[key];
    }
  }
  for (const key of KEPT) {
    delete now[key];
    delete then[key];
  }
  const [kept, wanted] = [withoutValues(now), withoutValues(then)];
  const isSecret = ([path]) => path === "webhook_secret" || path.startsWith("secret_params");
  const found = differences(kept, wanted);
  return {
    changed: found.filter((difference) => !isSecret(difference) || difference[2] === undefined),
    lost: found.filter((difference) => isSecret(difference) && difference[2] !== undefined).map(([path]) => path),
  };
}

/** Return the fields with every secret reading the same, since its value is not in the audit. */
function withoutValues({ secret_params: secrets, webhook_secret: signing, ...fields }) {
  const names = Object.keys(secrets ?? {});
  return { ...fields, secret_params: Object.fromEntries(names.map((name) => [name, "********"])), ...signing ? { webhook_secret: "********" } : {} };
}

function keysOf(before, after) {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])];
}

function isSame(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
