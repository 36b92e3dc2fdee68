/**
 * The clock by which times are shown and typed: UTC, or that of this machine. The choice is kept in the browser. It is all that is kept
 * there beside what was seen, and no secret.
 */

const STORED = "routines.clock";
const OFFSET = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" });
let isLocal = read() === "local";

/** The time zone of this machine, for example Europe/Berlin. */
export const LOCAL_ZONE = OFFSET.resolvedOptions().timeZone;

/** Return whether times are shown by the clock of this machine. */
export function showsLocal() {
  return isLocal;
}

/** Choose the clock. What is shown already stays as it is. @param {boolean} toLocal */
export function setLocal(toLocal) {
  isLocal = toLocal;
  try {
    if (toLocal) localStorage.setItem(STORED, "local");
    else localStorage.removeItem(STORED);
  } catch {
    // A browser that stores nothing forgets the choice with the page.
  }
}

/** Name the clock of a field: "UTC", or "Europe/Berlin". */
export function clockName() {
  return isLocal ? LOCAL_ZONE : "UTC";
}

/** Name the zone of a time, as it is at that time: "UTC", "GMT+2". @param {number} milliseconds @param {boolean} [local] */
export function zoneOf(milliseconds, local = isLocal) {
  if (!local) return "UTC";
  const name = OFFSET.formatToParts(milliseconds).find(({ type }) => type === "timeZoneName")?.value ?? LOCAL_ZONE;
  return name === "GMT" && /UTC$/.test(LOCAL_ZONE) ? "UTC" : name;
}

/**
 * Take a time apart.
 *
 * @param {number} milliseconds
 * @param {boolean} [local]
 */
export function partsOf(milliseconds, local = isLocal) {
  const time = new Date(milliseconds);
  return local
    ? { year: time.getFullYear(), month: time.getMonth(), date: time.getDate(), day: time.getDay(), hour: time.getHours(), minute: time.getMinutes(), second: time.getSeconds() }
    : { year: time.getUTCFullYear(), month: time.getUTCMonth(), date: time.getUTCDate(), day: time.getUTCDay(), hour: time.getUTCHours(), minute: time.getUTCMinutes(), second: time.getUTCSeconds() };
}

/** Return how far the chosen clock is ahead of UTC at a time, in milliseconds. @param {number} milliseconds */
export function offsetAt(milliseconds) {
  return isLocal ? -60_000 * new Date(milliseconds).getTimezoneOffset() : 0;
}

/**
 * Put a time together. Where a clock shows it twice, the first; one that it skips becomes another.
 *
 * @param {[number, number, number, number?, number?, number?]} parts Year, month from 0, date, hour, minute, second.
 * @param {boolean} [local]
 */
export function timeOfParts(parts, local = isLocal) {
  return local ? new Date(...parts).getTime() : Date.UTC(...parts);
}

function read() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null;
  }
}
