/**
 * Time zones: which there are, what their clocks show, and when these are set forward or back.
 */

import { stamp } from "./load.js";

const DAY_MILLISECONDS = 86_400_000;
const MINUTE_MILLISECONDS = 60_000;
const PARTS = /** @type {const} */ ({ hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" });

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Return the time zone of this machine. */
export function ownZone() {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
}

/** Return the names of time zones: UTC and that of this machine first. */
export function zoneNames() {
  return [...new Set(["UTC", ownZone(), ...Intl.supportedValuesOf?.("timeZone") ?? []])];
}

/**
 * Return a function from a time to what the clocks of a zone show then, written as if it were in UTC; null if the browser does not
 * know the zone.
 *
 * @param {string} zone
 * @returns {((iso: string) => string) | null}
 */
export function clocksOf(zone) {
  let format;
  try {
    format = new Intl.DateTimeFormat("en", { ...PARTS, timeZone: zone });
  } catch {
    return null;
  }
  return (iso) => {
    const part = Object.fromEntries(format.formatToParts(new Date(iso)).map(({ type, value }) => [type, value]));
    return `${part.year}-${part.month}-${part.day}T${part.hour}:${part.minute}:${part.second}Z`;
  };
}

/**
 * Write the day of what clocks show: `Mon 4 May`, with the year unless it is that of `today`.
 *
 * @param {string} shown As `clocksOf` returns it, or a time in UTC.
 * @param {number} today
 */
export function dayOf(shown, today) {
  const time = new Date(shown);
  const year = time.getUTCFullYear();
  return `${DAYS[time.getUTCDay()]} ${time.getUTCDate()} ${MONTHS[time.getUTCMonth()]}${year === new Date(today).getUTCFullYear() ? "" : ` ${year}`}`;
}

/** Write the time of the day of what clocks show: `09:00`, with seconds if they are not 0. @param {string} shown */
export function timeOf(shown) {
  return shown.slice(11, 19).replace(/:00$/, "");
}

/**
 * Return the changes of clocks between two times, in order.
 *
 * @param {(iso: string) => string} clocks
 * @param {number} from
 * @param {number} until
 * @returns {{at: number, isForward: boolean}[]}
 */
export function clockChanges(clocks, from, until) {
  const offset = (time) => Date.parse(clocks(stamp(time))) - time;
  const changes = [];
  for (let day = from; day < until; day += DAY_MILLISECONDS) {
    let [before, after] = [day, day + DAY_MILLISECONDS];
    const [earlier, later] = [offset(before), offset(after)];
    if (earlier === later) continue;
    while (after - before > MINUTE_MILLISECONDS) {
      const middle = before + Math.floor((after - before) / 2);
      if (offset(middle) === earlier) before = middle;
      else after = middle;
    }
    changes.push({ at: after, isForward: later > earlier });
  }
  return changes;
}
