/**
 * Build the inputs of a cadence from the service's description, with what else starts in its hour, its next slots and its coming year.
 * The limits of the schedule stand between them, since they decide which slots there are.
 */

import { fill, h } from "../dom.js";
import { rhythms, spoken } from "../rhythms.js";
import { zoneNames } from "../zones.js";
import { capital, inFieldOrder, label } from "../words.js";
import { coming } from "./coming.js";
import { field } from "./fields.js";
import { hourLoad } from "./hour-load.js";
import { momentField } from "./moment.js";

/**
 * What a new routine begins with, if the service offers it, and what the fields of other rhythms begin with.
 *
 * @type {Record<string, any>}
 */
const SUGGESTED = { type: "weekdays", hour_utc: 9, every_minutes: 15 };
const SETTLED_MILLISECONDS = 150;
const HINTS = {
  month_day: "Months without it are left out.",
  expression: "Minute, hour, day of the month, month, day of the week; up to 10 expressions, one on a line.",
};

/**
 * Build the inputs and what is shown about them.
 *
 * @param {import("../main.js").Context} context
 * @param {import("../cadences.js").CadenceType[]} types
 * @param {any} given The routine to begin with; its cadence is null for a new one.
 * @param {() => string} task Return the task that the routine runs.
 * @param {{element: HTMLElement, read: () => any, isSet: () => boolean}} limits When it does not run, whatever the cadence.
 */
export function cadenceFields(context, types, given, task, limits) {
  const offered = rhythms(types);
  const { name, ...start } = spoken(given.cadence ?? SUGGESTED);
  /** @type {Record<string, any>} The last value of each field: kept when the rhythm changes. */
  const values = { ...start };
  const first = offered.find((each) => each.name === name) ?? offered[0];
  let current = first;
  /** @type {Record<string, () => any>} Return the values of the fields shown, by name. */
  let readers = {};
  const fields = h("div", { class: "side-by-side wrapping" });
  const load = hourLoad(context, given, useMinute);
  const slots = coming(context, task);
  let timer = 0;

  /** Return the values of the fields shown. */
  function entered() {
    const read = Object.fromEntries(Object.entries(readers).map(([each, value]) => [each, value()]));
    Object.assign(values, read);
    return read;
  }

  /** Return the cadence as the request takes it; as it was given as long as nobody has changed it. */
  function read() {
    const cadence = current.write(entered());
    return given.cadence && current === first && JSON.stringify(cadence) === untouched ? given.cadence : cadence;
  }

  /** Show the fields of a rhythm. */
  function choose(rhythm) {
    entered();
    current = rhythm;
    limits.element.hidden = rhythm.name === "manual" && !limits.isSet();
    const controls = inFieldOrder(Object.keys(rhythm.fields)).map((each) =>
      ({ each, ...control(`cadence-${each}`, rhythm.fields[each], values[each] ?? SUGGESTED[each]) }));
    readers = Object.fromEntries(controls.map(({ each, value }) => [each, value]));
    fill(fields, controls.map(({ each, input, more }) => {
      const shown = field(`cadence.${each}`, labelOf(each), input, HINTS[each]);
      shown.classList.add(`of-${each}`);
      if (more) shown.append(more);
      return shown;
    }));
  }

  /** Name a field. With a time zone beside it, the hour is no longer that of UTC. */
  function labelOf(each) {
    return each === "hour_utc" && current.fields.timezone ? "Hour" : label(each);
  }

  function changed() {
    clearTimeout(timer);
    timer = setTimeout(show, SETTLED_MILLISECONDS);
  }

  async function show() {
    const cadence = read();
    const found = await slots.show(cadence, limits.read());
    if (found) load.show(movable(), found);
  }

  /** Return the minute that can be moved, and the hour unless it is every hour; null for rhythms without. */
  function movable() {
    const { minute_utc: minute, hour_utc: hour } = entered();
    return "minute_utc" in current.fields ? { minute: minute ?? 0, hour: hour ?? null } : null;
  }

  function useMinute(minute) {
    const input = /** @type {HTMLInputElement} */ (fields.querySelector("#cadence-minute_utc"));
    input.value = String(minute);
    input.focus();
    changed();
  }

  const radios = offered.map((rhythm) => h("label", {},
    h("input", { type: "radio", name: "cadence-type", value: rhythm.name, checked: rhythm === current, oninput: () => choose(rhythm) }),
    h("span", {}, label(rhythm.name))));
  const watched = { oninput: changed, onchange: ({ target }) => target.matches("select") && changed() };
  const element = h("div", { class: "cadence-fields" },
    h("div", watched,
      h("fieldset", { class: "segments field", "data-field": "cadence.type" }, h("legend", {}, "Cadence"), radios, h("p", { class: "field-error" })),
      fields),
    load.element, h("div", watched, limits.element), slots.year);
  choose(current);
  const untouched = JSON.stringify(current.write(entered()));
  changed();
  /** `changed` shows what follows from the cadence again, for another task. */
  return { element, preview: slots.card, read, changed };
}

/**
 * Build the control of a field: a list of choices, a number, cron expressions, a time, a time zone or another text.
 *
 * @param {string} id
 * @param {import("../cadences.js").CadenceField} description
 * @param {any} given Its value so far; undefined or null if it has none.
 * @returns {{input: any, value: () => any, more?: any}} `value` returns null, which the service treats as missing, if the input is empty.
 */
function control(id, description, given) {
  const { minimum = null, maximum = null, default: fallback = null, choices = null, format = null, example = null } = description;
  const initial = given ?? fallback;
  if (format === "cron") return expressions(id, initial, example);
  if (format === "date-time") return moment(id, initial);
  if (choices) return list(id, description, initial, description.required || fallback !== null);
  if ([minimum, maximum, fallback].some((each) => typeof each === "number")) {
    const start = initial ?? (description.required ? minimum : null);
    const input = h("input", { id, type: "number", min: minimum, max: maximum, inputmode: "numeric", value: start });
    return { input, value: () => input.value === "" ? null : Number(input.value) };
  }
  const isZone = format === "timezone";
  const input = h("input", { id, value: initial, placeholder: example, autocomplete: "off", spellcheck: "false", autocapitalize: "off", list: isZone ? `${id}-names` : null });
  const names = isZone && h("datalist", { id: `${id}-names` }, zoneNames().map((each) => h("option", { value: each })));
  return { input, value: () => input.value.trim() || null, more: names };
}

/** Build a time in UTC, as its label says, written as the console writes them. What is no time is left to the service to refuse. */
function moment(id, given) {
  const { input, read } = momentField(id, given, {}, false);
  return { input, value: () => read() ?? (input.value.trim() || null) };
}

/** Build a text with a cron expression on each line. What was given stays as it is until it is changed. */
function expressions(id, given, example) {
  const text = [given ?? []].flat().join("\n");
  const input = h("textarea", { id, rows: 2, class: "code", placeholder: example, spellcheck: "false", autocapitalize: "off" }, text);
  function value() {
    if (input.value === text) return given;
    const lines = input.value.split("\n").filter((line) => line.trim());
    return lines.length > 1 ? lines : lines[0] ?? null;
  }
  return { input, value };
}

/** Build a list of choices, with an empty one first if the field may be left out. */
function list(id, { choices, words }, initial, mustChoose) {
  const text = (each) => words ? capital(words(each)) : typeof each === "string" ? label(each) : each;
  const input = h("select", { id }, !mustChoose && h("option", { value: "" }, "–"), choices.map((each) =>
    h("option", { value: each, selected: each === initial }, text(each))));
  return { input, value: () => choices.find((each) => String(each) === input.value) ?? null };
}
