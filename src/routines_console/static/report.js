/**
 * Read the report of a time, and say which of its routines need a look.
 *
 * @typedef {{from: string, to: string}} Span Times of the service.
 */

import { DAY_MILLISECONDS, HOUR_MILLISECONDS, stamp, today } from "./load.js";
import { now } from "./time.js";

const MOST_ROUTINES = 10_000;
/**
 * The times that are offered: the name in the address, the text, and what it stands for.
 *
 * @type {[string, string, () => [number, number]][]}
 */
export const WINDOWS = [
  ["", "Since 00:00 UTC", () => [today(), now()]],
  ["12h", "12 hours", () => [now() - 12 * HOUR_MILLISECONDS, now()]],
  ["24h", "24 hours", () => [now() - DAY_MILLISECONDS, now()]],
  ["yesterday", "Yesterday", () => [today() - DAY_MILLISECONDS, today()]],
  ["7d", "7 days", () => [now() - 7 * DAY_MILLISECONDS, now()]],
];

/**
 * Return the time that an address names: from and to, or one of the windows; the first if it names none that there is.
 *
 * @param {Record<string, string>} query
 * @returns {Span & {since: string | null}} `since` is the name of the window; null if both ends were named.
 */
export function spanOf({ from, to, since }) {
  if (timeOf(from) && timeOf(to)) return { from, to, since: null };
  const [name, , ends] = WINDOWS.find(([each]) => each === since) ?? WINDOWS[0];
  const [begin, end] = ends();
  // A day has not begun at 00:00:00, and a time must not be empty.
  return { from: stamp(begin), to: stamp(Math.max(end, begin + 1000)), since: name };
}

/** Return a time of an address, null if it is none. @param {string} [text] */
export function timeOf(text) {
  return text && !Number.isNaN(Date.parse(text)) ? text : null;
}

/**
 * Read the report, those lines first that need a look.
 *
 * @param {import("./session.js").Session} session
 * @param {Span} span
 * @param {AbortSignal} signal
 */
export async function readReport({ api, collection }, { from, to }, signal) {
  const { items: report, cursor } = await api.page(["report", collection], { from, to, limit: MOST_ROUTINES }, signal);
  const lines = report.routines.filter(({ expected }) => expected);
  return {
    total: report.total,
    completeSince: report.complete_since,
    lines: lines.sort((one, other) => rank(one) - rank(other) || lost(other) - lost(one)),
    idle: report.routines.length - lines.length,
    isWhole: cursor === null,
  };
}

/**
 * Read the same as CSV.
 *
 * @param {import("./session.js").Session} session
 * @param {Span} span
 * @param {AbortSignal} signal
 */
export function readCsv({ api, collection }, { from, to }, signal) {
  return api.csv(["report", collection], { from, to, limit: MOST_ROUTINES }, signal);
}

/** Count the slots of a line that did not do their work. @param {any} line */
export function bad({ failed, skipped }) {
  return failed + skipped.missed + skipped.failed_to_start + skipped.backoff;
}

/** Count those of them that no later slot of the routine has made up for. @param {any} line */
export function lost(line) {
  return bad(line) - line.recovered;
}

/** Count the slots of a line that never ran, or whose run failed: what the list of gaps shows. @param {any} line */
export function gapsOf({ failed, skipped }) {
  return failed + Object.values(skipped).reduce((sum, number) => sum + number, 0);
}

function rank(line) {
  if (lost(line)) return 0;
  if (bad(line) || line.pending) return 1;
  return line.late ? 2 : 3;
}
