/**
 * Show times by the clock that the user has chosen, always with the zone, and the other clock in the tooltip. Relative times go by the
 * service's clock.
 */

import { partsOf, showsLocal, zoneOf } from "./clock.js";
import { h } from "./dom.js";

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** @type {[string, number][]} */
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const TICK_MILLISECONDS = 15000;
const SECOND_MILLISECONDS = 1000;

/** How far this machine's clock is behind the service's, in milliseconds; negative if it is ahead. */
let behind = 0;

/** Compare this machine's clock with the service's. @param {string | null} header The Date header, in whole seconds. */
export function noteServerTime(header) {
  const server = header ? Date.parse(header) : NaN;
  if (Number.isNaN(server)) return;
  const difference = server + 500 - Date.now();
  // Differences below a second come from rounding and the network, not from a wrong clock.
  if (Math.abs(difference - behind) > 1000) behind = Math.abs(difference) > 1000 ? difference : 0;
}

/** Return the current time by the service's clock, in milliseconds. */
export function now() {
  return Date.now() + behind;
}

const two = (number) => String(number).padStart(2, "0");

/**
 * Write a time by the clock that the user has chosen: `Fri 27 Nov, 09:00 UTC`. The year is added if it is not the current one, seconds
 * if they are not 0.
 *
 * @param {string} iso
 */
export function written(iso) {
  return `${bare(iso)} ${zone(iso)}`;
}

/** Return the zone of the chosen clock at a time. @param {string} iso */
export function zone(iso) {
  return zoneOf(Date.parse(iso));
}

/** Write the time between two that are at most a day apart: `Fri 27 Nov, 09:00 to 10:00 UTC`. @param {string} from @param {string} to */
export function between(from, to) {
  const zones = [from, to].map(zone);
  return `${bare(from)}${zones[0] === zones[1] ? "" : ` ${zones[0]}`} to ${bare(to).split(", ")[1]} ${zones[1]}`;
}

/** Write when something begins and ends, with the day only once if it is the same: `Fri 27 Nov, 09:00 to 10:30 UTC`. @param {string} from @param {string} to */
export function fromTo(from, to) {
  if (from === to) return written(from);
  const [begin, end] = [from, to].map((each) => bare(each));
  const zones = [from, to].map(zone);
  const [day, time] = end.split(", ");
  return `${begin}${zones[0] === zones[1] ? "" : ` ${zones[0]}`} to ${begin.startsWith(`${day}, `) ? time : end} ${zones[1]}`;
}

/** Take a time apart by the chosen clock, into its day and the time of the day: `Fri 27 Nov` and `09:00`. @param {string} iso */
export function dayAndTime(iso) {
  return bare(iso).split(", ");
}

/** Write a day of UTC: `Fri 27 Nov`. @param {string} iso */
export function utcDay(iso) {
  return bare(iso, false).split(", ")[0];
}

/** Write a time without its zone. */
function bare(iso, local = showsLocal()) {
  const time = partsOf(Date.parse(iso), local);
  const year = time.year === partsOf(now(), local).year ? "" : ` ${time.year}`;
  const seconds = time.second ? `:${two(time.second)}` : "";
  return `${DAYS[time.day]} ${time.date} ${MONTHS[time.month]}${year}, ${two(time.hour)}:${two(time.minute)}${seconds}`;
}

/**
 * Format a time relative to now: `3 min ago`, `in 2 h`, `now`.
 *
 * @param {string} iso
 */
export function relative(iso) {
  const seconds = (Date.parse(iso) - now()) / 1000;
  const [unit, size] = UNITS.find(([, least]) => Math.abs(seconds) >= least * 0.95) ?? ["s", 1];
  const count = Math.round(Math.abs(seconds) / size);
  if (count === 0 || (unit === "s" && count < 3)) return "now";
  return seconds < 0 ? `${count} ${unit} ago` : `in ${count} ${unit}`;
}

/**
 * Format a duration: `2 h 5 min`; a dash for null.
 *
 * @param {number | null} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/**
 * Write a length of time that someone has set, without the parts that are 0: `1 min`, `1 h 30 min`, `0.5 s`.
 *
 * @param {number} seconds
 */
export function span(seconds) {
  const parts = [];
  let rest = seconds;
  for (const [unit, size] of UNITS) {
    const number = unit === "s" ? rest : Math.floor(rest / size);
    if (number) parts.push(`${Number(number.toFixed(3))} ${unit}`);
    rest -= number * size;
  }
  return parts.join(" ") || "0 s";
}

/**
 * Return the seconds between two times; an `end` of null means now.
 *
 * @param {string} start
 * @param {string | null} end
 */
export function secondsBetween(start, end) {
  return Math.max(0, ((end ? Date.parse(end) : now()) - Date.parse(start)) / 1000);
}

/** Return a tooltip with the time by the chosen clock, and by the other one. @param {string} iso */
function tooltip(iso) {
  const other = !showsLocal();
  return `${written(iso)}\n${bare(iso, other)} ${zoneOf(Date.parse(iso), other)}`;
}

/**
 * Show a time with its zone; the other clock is in its tooltip.
 *
 * @param {string | null} iso
 * @param {string} [absent] Shown for null.
 */
export function at(iso, absent = "never") {
  if (!iso) return h("span", { class: "quiet" }, absent);
  return h("time", { datetime: iso, title: tooltip(iso) }, bare(iso), " ", h("span", { class: "zone" }, zone(iso)));
}

/**
 * Show the time of day to the millisecond, without its zone; the tooltip has both and the day.
 *
 * @param {string} iso
 */
export function clock(iso) {
  return h("time", { datetime: iso, title: tooltip(iso) }, timeOfDay(iso));
}

function timeOfDay(iso) {
  const { hour, minute, second } = partsOf(Date.parse(iso));
  return `${two(hour)}:${two(minute)}:${two(second)}.${String(new Date(iso).getUTCMilliseconds()).padStart(3, "0")}`;
}

/**
 * Show how long ago or how far ahead a time is; the text is kept up to date while it is shown.
 *
 * @param {string | null} iso
 * @param {string} [absent]
 */
export function ago(iso, absent = "never") {
  if (!iso) return h("span", { class: "quiet" }, absent);
  return h("time", { datetime: iso, title: tooltip(iso), "data-relative": true }, relative(iso));
}

/** Show a time, and relative to now. @param {string | null} iso @param {string} [absent] */
export function when(iso, absent = "never") {
  return iso ? h("span", { class: "when" }, at(iso), " ", h("span", { class: "quiet" }, ago(iso))) : at(null, absent);
}

/** Show how long something has been going on; the text is kept up to date while it is shown. @param {string} start */
export function elapsed(start) {
  return h("span", { class: "number", "data-since": start }, duration(secondsBetween(start, null)));
}

setInterval(() => {
  for (const shown of document.querySelectorAll("[data-since]")) {
    shown.textContent = duration(secondsBetween(/** @type {HTMLElement} */ (shown).dataset.since ?? "", null));
  }
}, SECOND_MILLISECONDS);

setInterval(() => {
  for (const shown of document.querySelectorAll("time[data-relative]")) {
    const text = relative(/** @type {HTMLTimeElement} */ (shown).dateTime);
    if (shown.textContent !== text) shown.textContent = text;
  }
}, TICK_MILLISECONDS);
