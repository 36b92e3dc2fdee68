/**
 * Find the routine of a run, and the other runs of it.
 */

import { RUNS } from "./components/durations.js";

const PAGE = 1000;

/**
 * Return the name of the routine with this id; null if it was deleted. The API cannot look a routine up by id.
 *
 * @param {import("./session.js").Session} session
 * @param {string} task Its task.
 * @param {number} id
 * @param {AbortSignal} signal
 */
export async function routineOf({ api, collection, routines }, task, id, signal) {
  if (routines.has(id)) return routines.get(id) ?? null;
  let cursor = null;
  do {
    const page = await api.page(["routines", collection, task], { limit: PAGE, cursor }, signal).catch(() => ({ items: [], cursor: null }));
    const found = page.items.find((each) => each.id === id);
    for (const each of page.items) routines.set(each.id, each.name);
    if (found) return found.name;
    cursor = page.cursor;
  } while (cursor);
  return null;
}

/**
 * Return the newest runs of a routine.
 *
 * @param {import("./session.js").Session} session
 * @param {string} task
 * @param {string} name
 * @param {AbortSignal} signal
 * @returns {Promise<any[]>}
 */
export function newestOf({ api, collection }, task, name, signal) {
  return api.get(["routines", collection, task, name, "runs"], { limit: RUNS }, signal);
}
