/**
 * Build inputs for days and times. They are written as the console shows times, in UTC and by 24 hours: the browser's own inputs
 * follow its language, and may ask for 05/04/2026, 09:00 AM.
 */

import { h } from "../dom.js";

const DAY = /^\d{4}-\d\d-\d\d$/;
const MOMENT = /^(\d{4}-\d\d-\d\d)(?:[T ]+(\d\d?):(\d\d)(?::(\d\d))?(?:\.\d+)?)?\s*(?:Z|UTC)?$/i;

/** What a moment has to look like. */
export const FORM = "Write it like 2026-05-04 09:00, in UTC.";

/**
 * Build an input for a time.
 *
 * @param {string} id
 * @param {string | null} given A time of the service.
 * @param {Record<string, any>} [attributes]
 */
export function momentField(id, given, attributes = {}) {
  const input = text(id, given ? shown(given) : "", "YYYY-MM-DD HH:MM", attributes);
  return {
    input,
    /** Return the time as the service takes it, null if there is none, undefined if it is not a time. */
    read: () => input.value.trim() ? momentOf(input.value.trim()) : null,
  };
}

/**
 * Build an input for a day.
 *
 * @param {string} id
 * @param {() => void} changed
 * @param {string} [given] A day, or a time of the service.
 */
export function dayField(id, changed, given = "") {
  const input = text(id, given.slice(0, "YYYY-MM-DD".length), "YYYY-MM-DD", { onchange: told });

  function told() {
    const isWrong = Boolean(input.value.trim()) && !read();
    if (isWrong) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    if (!isWrong) changed();
  }

  /** Return the day; null if there is none, or no such day. */
  function read() {
    const day = input.value.trim();
    return DAY.test(day) && momentOf(day) ? day : null;
  }

  return { input, read };
}

function text(id, value, placeholder, attributes) {
  return h("input", { id, value, placeholder, class: "moment", autocomplete: "off", spellcheck: "false", ...attributes });
}

/** Read what was typed; undefined if it is not a time. @param {string} typed */
function momentOf(typed) {
  const [, day, hour = "00", minute = "00", second = "00"] = MOMENT.exec(typed) ?? [];
  const time = `${day}T${hour.padStart(2, "0")}:${minute}:${second}Z`;
  const moment = new Date(time);
  // A day that a month does not have becomes one of the next month.
  return day && !Number.isNaN(moment.getTime()) && moment.toISOString().startsWith(day) ? time : undefined;
}

/** @param {string} iso */
function shown(iso) {
  return new Date(iso).toISOString().slice(0, 19).replace("T", " ").replace(/:00$/, "");
}
