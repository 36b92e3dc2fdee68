/**
 * Build the inputs for when a routine does not run, whatever its cadence: before or after a time, on the days of calendars, outside
 * active hours. They are closed as long as none of it is set.
 */

import { clockName } from "../clock.js";
import { fill, h } from "../dom.js";
import { written } from "../time.js";
import { exclusionWords } from "../words.js";
import { zoneNames } from "../zones.js";
import { field } from "./fields.js";
import { momentField } from "./moment.js";

const FIELDS = ["starts_at", "ends_at", "calendar", "active_hours"];
/** What becomes of a slot on a day that is left out, and of one outside active hours. */
const ON_EXCLUDED = [["skip", "Is left out"], ["next_day", "Moves to the next day"], ["next_business_day", "Moves to the next business day"]];
const OUTSIDE = [["skip", "Is left out"], ["defer", "Waits for the next window"]];

/**
 * Build the inputs.
 *
 * @param {any} given What the routine has now.
 * @param {{name: string}[]} calendars Those of the collection.
 */
export function daysAndHours(given, calendars) {
  const parts = {
    starts_at: bound("starts-at", given.starts_at), ends_at: bound("ends-at", given.ends_at),
    calendar: calendarChoice(given.calendar, calendars), active_hours: activeHours(given.active_hours),
  };
  const readers = FIELDS.map((name) => [name, keeping(given[name] ?? null, parts[name].entered)]);
  const words = h("span", { class: "quiet" });
  const read = () => Object.fromEntries(readers.map(([name, value]) => [name, value()]));
  const isSet = () => Object.values(read()).some((each) => each !== null);

  function told() {
    fill(words, limitWords(read()) || "Before or after a date, on holidays, outside active hours");
  }

  const element = h("details", { class: "days-and-hours", open: isSet(), oninput: told }, h("summary", {}, h("span", {}, "When it does not run"), words),
    h("div", { class: "side-by-side wrapping" },
      field("starts_at", `No slot before (${clockName()})`, parts.starts_at.input),
      field("ends_at", `No slot after (${clockName()})`, parts.ends_at.input)),
    h("p", { class: "hint" }, "A slot at either time runs. A day without a time means 00:00."),
    parts.calendar.element, parts.active_hours.element);
  told();
  return { element, read, isSet };
}

/** Put all limits into one line; empty if there are none. */
function limitWords({ starts_at: starts, ends_at: ends, ...exclusions }) {
  const time = (iso) => Number.isNaN(Date.parse(iso)) ? iso : written(iso);
  return [starts && `Not before ${time(starts)}`, ends && `Not after ${time(ends)}`, ...exclusionWords(exclusions)].filter(Boolean).join(". ");
}

/** Return what was given as long as nobody has changed it: it may hold more than its inputs show. */
function keeping(given, entered) {
  const untouched = JSON.stringify(entered());
  return () => {
    const value = entered();
    return JSON.stringify(value) === untouched ? given : value;
  };
}

/** Build the input of a time. What is no time is left to the service to refuse. */
function bound(id, given) {
  const { input, read } = momentField(id, given ?? null);
  return { input, entered: () => read() ?? (input.value.trim() || null) };
}

/** Build the boxes of the calendars: first those that are chosen, in their order, since the first that names a day says what it is called. */
function calendarChoice(given, calendars) {
  const names = [...new Set([...given?.exclude ?? [], ...calendars.map(({ name }) => name)])];
  const boxes = names.map((name) => h("input", { type: "checkbox", id: `calendar-${name}`, value: name, checked: given?.exclude.includes(name) }));
  const move = select("on-excluded", ON_EXCLUDED, given?.on_excluded);
  const then = field("calendar.on_excluded", "A slot on such a day", move, "It does not move if the next slot comes no later.");
  const chosen = () => boxes.filter(({ checked }) => checked).map(({ value }) => value);

  function turned() {
    then.hidden = !chosen().length;
  }
  turned();
  return {
    element: h("div", { oninput: turned },
      h("fieldset", { class: "field choices", "data-field": "calendar" }, h("legend", {}, "Not on the days of"),
        boxes.map((box) => h("label", { class: "toggle" }, box, box.value)),
        !boxes.length && h("p", { class: "hint" }, "The collection has no calendars yet: PUT /api/v1/calendars saves one."),
        h("p", { class: "field-error" })),
      then),
    entered: () => chosen().length ? { ...given, exclude: chosen(), on_excluded: move.value } : null,
  };
}

/** Build the inputs of the windows of the week, one on a line. */
function activeHours(given) {
  const windows = h("textarea", { id: "windows", rows: 2, placeholder: "mon-fri 08:00-18:00", spellcheck: "false", autocapitalize: "off" }, given?.windows.join("\n"));
  const zone = h("input", { id: "hours-timezone", value: given?.timezone, placeholder: "that of the cadence", list: "hours-timezone-names", autocomplete: "off", spellcheck: "false" });
  const outside = select("outside", OUTSIDE, given?.outside);
  const more = h("div", { class: "side-by-side wrapping" },
    field("active_hours.timezone", "Their time zone", zone), field("active_hours.outside", "A slot outside", outside));
  more.append(h("datalist", { id: "hours-timezone-names" }, zoneNames().map((each) => h("option", { value: each }))));
  const lines = () => windows.value.split("\n").map((line) => line.trim()).filter(Boolean);

  function turned() {
    more.hidden = !lines().length;
  }
  turned();

  function entered() {
    if (!lines().length) return null;
    const { timezone: _, ...rest } = given ?? {};
    return { ...rest, windows: lines(), outside: outside.value, ...zone.value.trim() ? { timezone: zone.value.trim() } : {} };
  }

  return {
    element: h("div", { oninput: turned, "data-field": "active_hours" },
      field("active_hours.windows", "Only in these hours", windows, "One window on a line. sat 22:00-06:00 goes on until Sunday morning."), more,
      h("p", { class: "field-error" })),
    entered,
  };
}

function select(id, choices, chosen) {
  return h("select", { id }, choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
