/**
 * Times: UTC in words, the local time as a hint, and how long ago by the service's clock.
 */

import { h } from "./dom.js";

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** @type {[string, number][]} */
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const TICK_MILLISECONDS = 15000;
const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** By how much this machine's clock is behind the service's, in milliseconds. */
let behind = 0;

/** @param {string | null} header The Date header of an answer, in whole seconds. */
export function noteServerTime(header) {
  const server = header ? Date.parse(header) : NaN;
  if (Number.isNaN(server)) return;
  const difference = server + 500 - Date.now();
  // Less than a second is the header's rounding and the way here, not a wrong clock.
  if (Math.abs(difference - behind) > 1000) behind = Math.abs(difference) > 1000 ? difference : 0;
}

/** Now, by the service's clock, in milliseconds. */
export function now() {
  return Date.now() + behind;
}

const two = (number) => String(number).padStart(2, "0");

/**
 * `Fri 27 Nov, 09:00`, with the year where it is not this one, and with seconds where there are any.
 *
 * @param {string} iso
 */
export function utc(iso) {
  const time = new Date(iso);
  const year = time.getUTCFullYear() === new Date(now()).getUTCFullYear() ? "" : ` ${time.getUTCFullYear()}`;
  const seconds = time.getUTCSeconds() ? `:${two(time.getUTCSeconds())}` : "";
  const day = `${DAYS[time.getUTCDay()]} ${time.getUTCDate()} ${MONTHS[time.getUTCMonth()]}${year}`;
  return `${day}, ${two(time.getUTCHours())}:${two(time.getUTCMinutes())}${seconds}`;
}

/**
 * `3 min ago`, `in 2 h`, `now`.
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
 * A length of time in words.
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
 * Seconds between two times; `end` null means now.
 *
 * @param {string} start
 * @param {string | null} end
 */
export function secondsBetween(start, end) {
  return Math.max(0, ((end ? Date.parse(end) : now()) - Date.parse(start)) / 1000);
}

/** The time here, with its zone, as a hint; and the same in UTC. @param {string} iso */
function hint(iso) {
  return `${utc(iso)} UTC\n${LOCAL.format(new Date(iso))}`;
}

/**
 * A time in UTC; the local one is its hint.
 *
 * @param {string | null} iso
 * @param {string} [absent] What stands for null.
 */
export function at(iso, absent = "never") {
  return iso ? h("time", { datetime: iso, title: hint(iso) }, utc(iso)) : h("span", { class: "quiet" }, absent);
}

/**
 * The time of day alone, to the millisecond; the day is in its hint.
 *
 * @param {string} iso
 */
export function clock(iso) {
  return h("time", { datetime: iso, title: hint(iso) }, new Date(iso).toISOString().slice(11, 23));
}

/**
 * How long ago or how far ahead a time is; kept true while it is shown.
 *
 * @param {string | null} iso
 * @param {string} [absent]
 */
export function ago(iso, absent = "never") {
  if (!iso) return h("span", { class: "quiet" }, absent);
  return h("time", { datetime: iso, title: hint(iso), "data-relative": true }, relative(iso));
}

/** Both. @param {string | null} iso @param {string} [absent] */
export function when(iso, absent = "never") {
  return iso ? h("span", { class: "when" }, at(iso), " ", h("span", { class: "quiet" }, ago(iso))) : at(null, absent);
}

setInterval(() => {
  for (const shown of document.querySelectorAll("time[data-relative]")) {
    const text = relative(/** @type {HTMLTimeElement} */ (shown).dateTime);
    if (shown.textContent !== text) shown.textContent = text;
  }
}, TICK_MILLISECONDS);
