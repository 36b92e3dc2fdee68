/**
 * Build the inputs of a cadence from the service's description, and preview its next slots.
 */

import { Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { when } from "../time.js";
import { cadenceWords, inFieldOrder, label } from "../words.js";
import { field } from "./fields.js";

/**
 * What a new routine begins with, if the service offers it.
 *
 * @type {Record<string, any>}
 */
const SUGGESTED = { type: "weekdays", hour_utc: 9 };
const SETTLED_MILLISECONDS = 150;
const SLOTS = 10;

/**
 * Build the inputs and the preview.
 *
 * @param {import("../main.js").Context} context
 * @param {import("../cadences.js").CadenceType[]} types
 * @param {any} given The cadence to begin with; null for a new routine.
 * @param {() => string} task Return the task that the routine runs.
 */
export function cadenceFields({ session: { api, collection }, signal }, types, given, task) {
  /** @type {Record<string, any>} The last value of each field: kept when the type changes. */
  const values = { ...given ?? SUGGESTED };
  let current = types.find(({ type }) => type === values.type) ?? types[0];
  /** @type {Record<string, () => any>} Return the values of the fields shown, by name. */
  let readers = {};
  const fields = h("div", { class: "side-by-side" });
  const preview = h("div", { class: "preview card", "aria-live": "polite", id: "preview" });
  let timer = 0;
  let asked = 0;

  /** Return the cadence as the request takes it. */
  function read() {
    const entered = Object.fromEntries(Object.entries(readers).map(([name, value]) => [name, value()]));
    Object.assign(values, entered);
    return { type: current.type, ...entered };
  }

  /** Show the fields of a type. */
  function choose(type) {
    read();
    current = type;
    const controls = inFieldOrder(Object.keys(type.fields)).map((name) =>
      ({ name, ...control(`cadence-${name}`, type.fields[name], values[name] ?? SUGGESTED[name]) }));
    readers = Object.fromEntries(controls.map(({ name, value }) => [name, value]));
    fill(fields, controls.map(({ name, input }) => field(`cadence.${name}`, label(name), input)));
  }

  function changed() {
    clearTimeout(timer);
    timer = setTimeout(show, SETTLED_MILLISECONDS);
  }

  async function show() {
    asked += 1;
    const mine = asked;
    const cadence = read();
    try {
      const { slots } = await api.send("POST", ["cadence-preview", collection], { cadence, count: SLOTS });
      if (mine === asked && !signal.aborted) {
        fill(preview, shown(cadence, slots));
        await warn(mine, cadence);
      }
    } catch (error) {
      if (mine === asked && !signal.aborted) fill(preview, refused(error));
    }
  }

  /** Add what to know about the coming year, unless the service has no time for it. */
  async function warn(mine, cadence) {
    if (cadence.type === "manual") return;
    try {
      const { warnings } = await api.send("POST", ["cadence-preview", collection], { cadence, task: task() });
      if (mine === asked && !signal.aborted) preview.append(...warnings.map((text) => h("p", { class: "notice" }, text)));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
    }
  }

  const radios = types.map((type) => h("label", {},
    h("input", { type: "radio", name: "cadence-type", value: type.type, checked: type === current, oninput: () => choose(type) }),
    h("span", {}, label(type.type))));
  const element = h("div", { class: "cadence-fields", oninput: changed },
    h("fieldset", { class: "segments field", "data-field": "cadence.type" }, h("legend", {}, "Cadence"), radios, h("p", { class: "field-error" })),
    fields);
  choose(current);
  changed();
  /** `changed` shows the preview again, for another task. */
  return { element, preview, read, changed };
}

/**
 * Build the control of a field: a list of choices, a number, cron expressions or another text.
 *
 * @param {string} id
 * @param {import("../cadences.js").CadenceField} description
 * @param {any} given Its value so far; undefined or null if it has none.
 * @returns {{input: any, value: () => any}} `value` returns null, which the service treats as missing, if the input is empty.
 */
function control(id, description, given) {
  const { minimum = null, maximum = null, default: fallback = null, choices = null, format = null, example = null } = description;
  const initial = given ?? fallback;
  if (format === "cron") return expressions(id, initial, example);
  if (choices) return list(id, choices, initial, description.required || fallback !== null);
  if ([minimum, maximum, fallback].some((each) => typeof each === "number")) {
    const start = initial ?? (description.required ? minimum : null);
    const input = h("input", { id, type: "number", min: minimum, max: maximum, inputmode: "numeric", value: start });
    return { input, value: () => input.value === "" ? null : Number(input.value) };
  }
  const input = h("input", { id, value: initial, placeholder: example, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  return { input, value: () => input.value.trim() || null };
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
function list(id, choices, initial, mustChoose) {
  const input = h("select", { id }, !mustChoose && h("option", { value: "" }, "–"), choices.map((each) =>
    h("option", { value: each, selected: each === initial }, typeof each === "string" ? label(each) : each)));
  return { input, value: () => choices.find((each) => String(each) === input.value) ?? null };
}

function shown(cadence, slots) {
  return [h("h2", {}, "Next slots"), h("p", { class: "sentence" }, `${cadenceWords(cadence)}.`),
    slots.length ? h("ol", { class: "times" }, slots.map((slot) => h("li", {}, when(slot))))
      : h("p", { class: "quiet" }, cadence.type === "manual" ? "None: it runs only when someone starts it." : "None.")];
}

function refused(error) {
  const errors = error instanceof Problem ? error.errors : [];
  const text = errors.map(({ field: name, message }) => `${label(name.replace("cadence.", ""))}: ${message}`).join("; ");
  return [h("h2", {}, "Next slots"), h("p", { class: "quiet" }, text ? `Not valid yet. ${text}.` : error.message)];
}
