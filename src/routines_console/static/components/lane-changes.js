/**
 * Find out which lanes have to be read again, from what the service says has changed and from the time that has passed.
 */

import { now } from "../time.js";

/** How long after its time a slot may still be shown as one to come. That it is due, and no ticker has picked it up, is no change. */
const LATE_MILLISECONDS = 5000;

/**
 * Return the ids of the lanes to read again; null if there may be other lanes now, or in another order.
 *
 * @param {{is_whole: boolean, routines: any[], deleted: number[]}} changes
 * @param {any[]} lanes Those that were read so far, in their order.
 * @param {(routine: any) => boolean} isMissing Whether a routine that has no lane should have one among them.
 * @returns {Set<number> | null}
 */
export function lanesToRead({ is_whole: isWhole, routines, deleted }, lanes, isMissing) {
  const known = new Map(lanes.map((lane) => [lane.routine_id, lane]));
  const isOther = (routine) => {
    const lane = known.get(routine.id);
    return lane ? lane.task !== routine.task_name || lane.routine !== routine.name : isMissing(routine);
  };
  if (!isWhole || deleted.some((id) => known.has(id)) || routines.some(isOther)) return null;
  const changed = routines.map(({ id }) => id).filter((id) => known.has(id));
  return new Set([...changed, ...lanes.filter(isLate).map(({ routine_id: id }) => id)]);
}

/**
 * Return whether a routine is before a lane, by task and name as the service sorts.
 *
 * @param {any} routine
 * @param {any} lane
 */
export function isBefore({ task_name: task, name }, lane) {
  return task < lane.task || (task === lane.task && name < lane.routine);
}

/** Return whether a run of a lane goes on, so that its bar grows. @param {any} lane */
export function goesOn({ marks }) {
  return marks.some(({ until }) => until === null);
}

/** Return whether a slot is shown as one to come that was due before. @param {any} lane */
function isLate({ marks }) {
  return marks.some(({ kind, at }) => kind === "coming" && Date.parse(at) < now() - LATE_MILLISECONDS);
}
