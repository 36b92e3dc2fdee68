/**
 * Show times in UTC, with the local time as a tooltip, and relative times by the service's clock.
 */

import { h } from "./dom.js";

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** @type {[string, number][]} */
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const TICK_MILLISECONDS = 15000;
const SECOND_MILLISECONDS = 1000;
const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

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
 * Format a time in UTC: `Fri 27 Nov, 09:00`. The year is added if it is not the current one, seconds if they are not 0.
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

/** Return a tooltip with the time in UTC and in the local time zone. @param {string} iso */
function tooltip(iso) {
  return `${utc(iso)} UTC\n${LOCAL.format(new Date(iso))}`;
}

/**
 * Show a time in UTC, with the local time as its tooltip.
 *
 * @param {string | null} iso
 * @param {string} [absent] Shown for null.
 */
export function at(iso, absent = "never") {
  return iso ? h("time", { datetime: iso, title: tooltip(iso) }, utc(iso)) : h("span", { class: "quiet" }, absent);
}

/**
 * Show the time of day to the millisecond; the tooltip has the day.
 *
 * @param {string} iso
 */
export function clock(iso) {
  return h("time", { datetime: iso, title: tooltip(iso) }, new Date(iso).toISOString().slice(11, 23));
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

/** Show a time in UTC and relative to now. @param {string | null} iso @param {string} [absent] */
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
