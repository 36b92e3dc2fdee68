/**
 * What can be done with several routines at once. Each module beside this one describes one action.
 *
 * @typedef {object} Action
 * @property {string} heading Of the dialog that asks: "Pause 15 routines".
 * @property {any[]} fields What the user may choose; whatever is changed in them changes the plan.
 * @property {(signal: AbortSignal, told: (read: number) => void) => Promise<void>} look Reads what the plan needs, and tells of how many
 *   routines it is known.
 * @property {() => Plan} plan What would be done, as the fields are now.
 * @property {(form: HTMLFormElement) => boolean} [isValid] Shows errors next to the fields.
 *
 * @typedef {object} Plan
 * @property {[string, string[]][]} effects What becomes of the routines, in sentences, each with those that it is about.
 * @property {string[]} notes What else there is to know.
 * @property {import("./work.js").Job[]} jobs
 * @property {string} verb The text of the button that begins.
 * @property {{doing: string, done: string}} words
 * @property {boolean} [isFinal] Whether it cannot be undone.
 */

import { Problem } from "../api.js";
import { count } from "../words.js";

/** How many of the newest runs of a routine are looked at. */
export const RUNS = 100;

/**
 * Return the path of a routine in the API.
 *
 * @param {import("../session.js").Session} session
 * @param {any} routine
 */
export function pathOf({ collection }, { task_name: task, name }) {
  return ["routines", collection, task, name];
}

/** Name a routine as people know it. @param {any} routine */
export function nameOf({ task_name: task, name }) {
  return `${task}/${name}`;
}

/**
 * Read a routine again. Throws if it was deleted, also if another one has its name now.
 *
 * @param {import("../session.js").Session} session
 * @param {any} routine
 * @param {import("../api.js").Patience} patience
 */
export async function readAgain(session, routine, patience) {
  const found = await session.api.get(pathOf(session, routine), {}, patience.signal, patience);
  if (found.id !== routine.id) throw new Problem(404, { detail: "It was deleted, and another routine has its name now." });
  return found;
}

/**
 * Say how many routines something is true of: "12 routines will be paused."
 *
 * @param {import("../fleet.js").Entry[]} entries
 * @param {string} one What is said of one.
 * @param {string} [many]
 * @returns {[string, string[]] | null} Null if there are none.
 */
export function effect(entries, one, many = one) {
  if (!entries.length) return null;
  return [count(entries.length, `routine ${one}`, `routines ${many}`), entries.map(({ routine }) => nameOf(routine))];
}

/** Part entries into those of which it is true and the others. @template T @param {T[]} all @param {(each: T) => boolean} isOne @returns {[T[], T[]]} */
export function parted(all, isOne) {
  return [all.filter(isOne), all.filter((each) => !isOne(each))];
}

/**
 * Read the newest runs of each routine.
 *
 * @param {import("../session.js").Session} session
 * @param {import("../fleet.js").Entry[]} entries
 * @param {AbortSignal} signal
 * @param {(read: number) => void} told
 * @returns {Promise<Map<number, any[]>>} By routine, newest first.
 */
export async function newestRuns(session, entries, signal, told) {
  const found = new Map();
  await Promise.all(entries.map(async ({ routine }) => {
    found.set(routine.id, await session.api.get([...pathOf(session, routine), "runs"], { limit: RUNS }, signal));
    told(found.size);
  }));
  return found;
}
