/**
 * Read the names of all tasks and routines, and find the task of a run.
 *
 * @typedef {{tasks: string[], routines: {task: string, name: string}[]}} Names
 */

import { Problem } from "./api.js";
import { isDisabled } from "./components/failure.js";

const PAGE = 1000;

/**
 * Read them.
 *
 * @param {import("./session.js").Session} session
 * @param {AbortSignal} signal
 * @returns {Promise<Names>}
 */
export async function readNames({ api, collection, routines: known }, signal) {
  const tasks = (await api.get(["tasks", collection, ""], {}, signal)).map(({ name }) => name);
  const routines = [];
  let cursor = null;
  do {
    const page = await api.page(["routines", collection], { limit: PAGE, cursor }, signal).catch(withoutRoutines);
    for (const { id, name, task_name: task } of page.items) {
      known.set(id, name);
      routines.push({ task, name });
    }
    cursor = page.cursor;
  } while (cursor);
  return { tasks, routines };
}

/** Where routines are disabled there are none. */
function withoutRoutines(error) {
  if (isDisabled(error)) return { items: [], cursor: null };
  throw error;
}

/**
 * Return the task of a run. Its log is found by the number alone, and names the task.
 *
 * @param {import("./session.js").Session} session
 * @param {string} id
 */
export async function findRun({ api, collection }, id) {
  try {
    const { workflow_id: found } = await api.get(["workflows-logs", `flow-${collection}--${id}`], { limit: 1 });
    return found.slice(`flow-${collection}-`.length, found.lastIndexOf("--"));
  } catch (error) {
    throw error instanceof Problem && error.status === 404 ? new Problem(404, { detail: `There is no run ${id}.` }) : error;
  }
}
