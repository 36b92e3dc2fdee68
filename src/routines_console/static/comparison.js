/**
 * Find the last good run before one that failed, and say in what the two differ.
 *
 * @typedef {import("./differences.js").Difference} Difference
 * @typedef {{step: string, changed: Difference[] | null}} Outputs Where the outputs of a step differ; null if they are too large to compare.
 * @typedef {{step: string, status: string, now: number, then: number}} Pace How the step ended, and how many seconds it took in each run.
 *
 * @typedef {object} Comparison
 * @property {Difference[]} parameters
 * @property {Difference[]} configs What was changed in the steps of the task.
 * @property {Outputs[]} outputs Of the steps that both have completed, in their order.
 * @property {Pace[]} paces Of the steps that took notably longer or shorter.
 */

import { differences } from "./differences.js";

/** From how many times as long, and how many seconds longer, a step is said to take longer. */
const NOTABLE_TIMES = 1.5;
const NOTABLE_SECONDS = 1;
/** The service saves large outputs in a file of such a name, and has its name and size in their place. */
const OUTPUTS_FILE = /-outputs\.json$/;

/** Return whether a run ended without doing its work. An archived one says so only by its error. @param {any} run */
export function hasFailed({ status, error }) {
  return status === "failed" || status === "cancelled" || (status === "archived" && error !== null);
}

/**
 * Return the newest completed run of the same routine before a run; null if there is none.
 *
 * The newest runs, which the page has read anyway, usually contain it. Otherwise it is looked for in the list of completed ones.
 *
 * @param {import("./main.js").Context} context
 * @param {any} run
 * @param {any[]} newest The newest runs of its routine, newest first; empty if they are not known.
 */
export async function lastGood({ session: { api, collection }, params: { task }, signal }, run, newest) {
  const completed = newest.filter(({ status }) => status === "completed");
  const isLater = (each) => each.trajectory_id > run.trajectory_id;
  const query = { status: "completed", triggered_by_routine_id: run.triggered_by_routine_id, limit: 1 };
  const placed = async (/** @type {number} */ page) => (await api.get(["db", "trajectories", collection, task], { ...query, page }, signal)).trajectories[0];
  const found = completed.find((each) => !isLater(each)) ?? await firstAfter(completed.length, placed, isLater);
  return found ? api.get(["db", "trajectory", collection, task, found.trajectory_id], {}, signal) : null;
}

/**
 * Return the first item of a list that is not `isLater`, while all before it are; undefined if there is none.
 *
 * The API does not list the runs before a given one. So this reads single items, each twice as far on, and then halves the distance: one
 * request if the item is the next, 19 if a thousand are later.
 *
 * @param {number} passed How many items at the beginning are known to be later.
 * @param {(place: number) => Promise<any>} placed Returns the item at a place, from 1; undefined beyond the end.
 * @param {(item: any) => boolean} isLater
 */
async function firstAfter(passed, placed, isLater) {
  let step = 1;
  let found = await placed(passed + step);
  while (found && isLater(found)) {
    passed += step;
    step *= 2;
    found = await placed(passed + step);
  }
  // `found` is at the place passed + step: what is looked for is there or before.
  while (step > 1) {
    const half = Math.floor(step / 2);
    const middle = await placed(passed + half);
    if (middle && isLater(middle)) [passed, step] = [passed + half, step - half];
    else [found, step] = [middle, half];
  }
  return found;
}

/**
 * Compare a run with a good one.
 *
 * @param {any} run
 * @param {any} good
 * @returns {Comparison}
 */
export function compare(run, good) {
  const common = Object.keys(run.steps).filter((step) => good.steps[step]).map((step) => ({ step, now: run.steps[step], then: good.steps[step] }));
  return {
    parameters: differences(good.init_params, run.init_params),
    configs: differences(good.step_configs, run.step_configs),
    outputs: common.map(outputs).filter(({ changed }) => !changed || changed.length > 0),
    paces: common.map(pace).filter(isNotable),
  };
}

/** @returns {Outputs} */
function outputs({ step, now, then }) {
  if (now.status !== "completed" || then.status !== "completed") return { step, changed: [] };
  if ([now, then].some((each) => each.truncated || isInFile(each.outputs))) return { step, changed: null };
  return { step, changed: differences(then.outputs ?? {}, now.outputs ?? {}) };
}

function isInFile(given) {
  return Object.keys(given ?? {}).sort().join() === "bytes,file_path" && OUTPUTS_FILE.test(given.file_path);
}

/** A step that was kept from another run took its time there. */
function pace({ step, now, then }) {
  const seconds = (each) => each.kept_from ? null : each.duration_seconds;
  return { step, status: now.status, now: seconds(now), then: seconds(then) };
}

function isNotable({ now, then }) {
  if (typeof now !== "number" || typeof then !== "number") return false;
  const [short, long] = now < then ? [now, then] : [then, now];
  return long - short >= NOTABLE_SECONDS && long >= short * NOTABLE_TIMES;
}
