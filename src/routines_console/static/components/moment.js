/**
 * Build inputs for days and times. They are written as the console shows times, by the clock that the user has chosen and by 24 hours:
 * the browser's own inputs follow its language, and may ask for 05/04/2026, 09:00 AM. A time that ends in Z or UTC is one.
 */

import { clockName, partsOf, showsLocal, timeOfParts } from "../clock.js";
import { h } from "../dom.js";
import { stamp } from "../load.js";

const DAY = /^\d{4}-\d\d-\d\d$/;
const MOMENT = /^(\d{4})-(\d\d)-(\d\d)(?:[T ]+(\d\d?):(\d\d)(?::(\d\d))?(?:\.\d+)?)?\s*(Z|UTC)?$/i;

/** Say what a moment has to look like. */
export function momentForm() {
  return `Write it like 2026-05-04 09:00, in ${clockName()}.`;
}

/**
 * Build an input for a time.
 *
 * @param {string} id
 * @param {string | null} given A time of the service.
 * @param {Record<string, any>} [attributes]
 * @param {boolean} [local] Whether it is of the clock of this machine; false for UTC, whatever the user has chosen.
 */
export function momentField(id, given, attributes = {}, local = showsLocal()) {
  const input = text(id, given ? shown(given, local) : "", "YYYY-MM-DD HH:MM", attributes);
  return {
    input,
    /** Return the time as the service takes it, null if there is none, undefined if it is not a time. */
    read: () => input.value.trim() ? momentOf(input.value.trim(), local) : null,
  };
}

/**
 * Build an input for a day.
 *
 * @param {string} id
 * @param {() => void} changed
 * @param {string} [given] A time of the service.
 */
export function dayField(id, changed, given = "") {
  const input = text(id, given && shown(given).slice(0, "YYYY-MM-DD".length), "YYYY-MM-DD", { onchange: told });

  function told() {
    const isWrong = Boolean(input.value.trim()) && !read();
    if (isWrong) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    if (!isWrong) changed();
  }

  /** Return when the day is over; null if there is none, or no such day. */
  function read() {
    const day = input.value.trim();
    const begin = DAY.test(day) ? momentOf(day) : null;
    if (!begin) return null;
    const { year, month, date } = partsOf(Date.parse(begin));
    return stamp(timeOfParts([year, month, date + 1]));
  }

  return { input, read };
}

function text(id, value, placeholder, attributes) {
  return h("input", { id, value, placeholder, class: "moment", autocomplete: "off", spellcheck: "false", ...attributes });
}

/** Read what was typed; undefined if it is not a time of the clock. @param {string} typed @param {boolean} [local] */
function momentOf(typed, local = showsLocal()) {
  const [, year, month, date, hour = "0", minute = "0", second = "0", zone] = MOMENT.exec(typed) ?? [];
  const isLocal = local && !zone;
  const moment = timeOfParts([Number(year), Number(month) - 1, Number(date), Number(hour), Number(minute), Number(second)], isLocal);
  if (Number.isNaN(moment)) return undefined;
  // A day that a month does not have, or an hour that the clock skips, becomes another.
  const read = partsOf(moment, isLocal);
  const isSame = read.year === Number(year) && read.date === Number(date) && read.hour === Number(hour) && read.minute === Number(minute) && read.second === Number(second);
  return isSame ? stamp(moment) : undefined;
}

/** @param {string} iso @param {boolean} [local] */
function shown(iso, local = showsLocal()) {
  const { year, month, date, hour, minute, second } = partsOf(Date.parse(iso), local);
  return `${year}-${two(month + 1)}-${two(date)} ${two(hour)}:${two(minute)}${second ? `:${two(second)}` : ""}`;
}

function two(number) {
  return String(number).padStart(2, "0");
}
