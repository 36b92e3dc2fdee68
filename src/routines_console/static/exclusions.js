/**
 * Say which slots calendars and active hours leave out of a schedule that is not saved yet, by the rule of the service. To when such a
 * slot moves is left to the service: that depends on more than its day and hour.
 *
 * @typedef {{at: string, count: number, words: string | null}} Stretch A slot that runs, where `words` is null; otherwise how many in a row
 *   do not, from this one on, and why.
 */

import { Problem } from "./api.js";
import { DAY_MILLISECONDS, stamp } from "./load.js";
import { clocksOf } from "./zones.js";

export const OUTSIDE = "outside active hours";
const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES = 1440;
const WEEK_MINUTES = DAYS.length * DAY_MINUTES;
/** Such as `mon-fri 08:00-18:00` or `fri,sat 22:00-06:00`. */
const WINDOW = /^([a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*) ([01]\d:[0-5]\d|2[0-3]:[0-5]\d)-([01]\d:[0-5]\d|2[0-3]:[0-5]\d|24:00)$/;

/**
 * Return a function that says why a slot is left out; of a slot that is not, it returns null.
 *
 * @param {{calendar: any, active_hours: any}} limits As the request has them.
 * @param {string} zone That of the cadence.
 * @param {any[]} calendars Those that the limits name, with their days.
 * @returns {(slot: string) => string | null}
 */
export function exclusions({ calendar, active_hours: hours }, zone, calendars) {
  const named = calendar ? calendars.map((each) => ({ clocks: clocksIn(each.timezone ?? zone, "calendar"), labels: labelsOf(each) })) : [];
  const clocks = hours && clocksIn(hours.timezone ?? zone, "active_hours");
  const isActive = hours && minutesIn(hours.windows);
  return (slot) => {
    for (const each of named) {
      const label = each.labels.get(each.clocks(slot).slice(0, 10));
      if (label) return label;
    }
    return !hours || isActive[minuteOfWeek(clocks(slot))] ? null : OUTSIDE;
  };
}

/**
 * Put those slots together that are left out one after the other for one reason.
 *
 * @param {string[]} slots
 * @param {((slot: string) => string | null) | null} leftOut
 * @param {number} most How many that run are wanted.
 * @returns {Stretch[]}
 */
export function stretches(slots, leftOut, most) {
  /** @type {Stretch[]} */
  const found = [];
  let running = 0;
  for (const at of slots) {
    const words = leftOut?.(at) ?? null;
    const last = found.at(-1);
    if (words !== null && last?.words === words) last.count += 1;
    else found.push({ at, count: 1, words });
    if (words === null) running += 1;
    if (running === most) break;
  }
  return found;
}

/** Return the clocks of a zone. They are asked twice a day, unless they change on it: to ask for thousands of slots takes too long. */
function clocksIn(zone, field) {
  if (zone === "UTC") return (iso) => iso;
  const clocks = clocksOf(zone);
  if (!clocks) throw refusal(field, `this browser does not know the time zone ${zone}`);
  const ahead = (time) => Date.parse(clocks(stamp(time))) - time;
  /** How far they are ahead of UTC, by day; null if they change on it. @type {Map<number, number | null>} */
  const days = new Map();
  return (iso) => {
    const time = Date.parse(iso);
    const begin = time - time % DAY_MILLISECONDS;
    if (!days.has(begin)) days.set(begin, ahead(begin) === ahead(begin + DAY_MILLISECONDS) ? ahead(begin) : null);
    const offset = days.get(begin) ?? null;
    return offset === null ? clocks(iso) : stamp(time + offset);
  };
}

/** Return what a calendar calls its days, by date. @returns {Map<string, string>} */
function labelsOf({ name, days }) {
  const labels = new Map();
  for (const { from, to = from, label = name } of days) {
    for (let day = from; day <= to; day = dayAfter(day)) if (!labels.has(day)) labels.set(day, label);
  }
  return labels;
}

function dayAfter(day) {
  const date = new Date(day);
  date.setUTCDate(date.getUTCDate() + 1);
  return date.toISOString().slice(0, 10);
}

/** Mark the minutes of the week, from Monday 00:00, that are in one of the windows. @param {string[]} windows */
function minutesIn(windows) {
  const minutes = new Array(WEEK_MINUTES).fill(false);
  for (const text of windows) {
    const window = windowOf(text);
    if (!window) throw refusal("active_hours", `${text} is no window such as mon-fri 08:00-18:00`);
    for (const day of window.days) {
      for (let minute = 0; minute < window.length; minute += 1) minutes[(day * DAY_MINUTES + window.begin + minute) % WEEK_MINUTES] = true;
    }
  }
  return minutes;
}

/** Read a window; null if it is none. One that ends before it begins goes on until the next day. */
function windowOf(text) {
  const [, days, ...times] = WINDOW.exec(text.toLowerCase()) ?? [];
  const listed = days?.split(",").flatMap(range) ?? [-1];
  const [begin, end] = times.map((time) => Number(time.slice(0, 2)) * 60 + Number(time.slice(3)));
  if (listed.includes(-1) || begin === end) return null;
  return { days: listed, begin, length: end > begin ? end - begin : end - begin + DAY_MINUTES };
}

/** Return the days of `mon`, or of `sat-mon`, as numbers; -1 for what is no day. */
function range(text) {
  const [first, last = first] = text.split("-").map((name) => DAYS.indexOf(name));
  if (first < 0 || last < 0) return [-1];
  return Array.from({ length: (last - first + DAYS.length) % DAYS.length + 1 }, (_, index) => (first + index) % DAYS.length);
}

function minuteOfWeek(shown) {
  const time = new Date(shown);
  return (time.getUTCDay() + 6) % 7 * DAY_MINUTES + time.getUTCHours() * 60 + time.getUTCMinutes();
}

function refusal(field, message) {
  return new Problem(400, { detail: message, errors: [{ field, message }] });
}
