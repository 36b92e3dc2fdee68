/**
 * Put the marks of the timeline, and its times, into words.
 */

import { dayAndTime, duration, fromTo, now, written } from "../time.js";
import { count, KINDS } from "../words.js";

/** How late a run may begin without a word, in seconds. */
const LATE_SECONDS = 60;
/** The kinds of marks that are runs. */
export const STATUSES = ["pending", "running", "completed", "failed", "cancelled", "archived"];

/** Say when a mark was, or will be, and what it is: "Mon 30 Nov, 09:00 UTC: Completed, run 4251, 2 min 10 s". @param {any} mark */
export function markWords(mark) {
  const isSpan = mark.until && (mark.count > 1 || !STATUSES.includes(mark.kind));
  return [`${isSpan ? fromTo(mark.at, mark.until) : written(mark.at)}: ${KINDS[mark.kind] ?? mark.kind}`, ...details(mark)].join(", ");
}

function details({ kind, count: number = 1, at, until, trajectory_id: run, scheduled_for: slot }) {
  const isRun = STATUSES.includes(kind);
  if (number > 1) return [count(number, isRun ? "run" : "slot")];
  if (!isRun) return [];
  const delay = slot ? (Date.parse(at) - Date.parse(slot)) / 1000 : 0;
  const took = ((until ? Date.parse(until) : now()) - Date.parse(at)) / 1000;
  return [`run ${run}`, kind === "running" ? `for ${duration(took)} so far` : kind !== "pending" && duration(took),
    kind !== "pending" && delay > LATE_SECONDS && `began ${duration(delay)} after its slot`].filter(Boolean);
}

/** Say until when a routine is paused. @param {any} found */
export function pauseWords({ paused_until: until }) {
  return until ? `paused until ${written(until)}` : "paused";
}

/** Write a time above the lanes: at midnight the day. @param {number} time */
export function axisWords(time) {
  const [day, clock] = dayAndTime(new Date(time).toISOString());
  return clock === "00:00" ? { text: day, isMidnight: true } : { text: clock, isMidnight: false };
}
