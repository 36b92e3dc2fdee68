/**
 * The fields of a cadence: only those that its type takes. Beside them, what it comes to: the next slots.
 */

import { Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { when } from "../time.js";
import { cadenceWords } from "../words.js";
import { field } from "./fields.js";

const TYPES = [["manual", "By hand"], ["hourly", "Hourly"], ["daily", "Daily"], ["weekdays", "Weekdays"], ["weekly", "Weekly"]];
const DAYS = [["mon", "Monday"], ["tue", "Tuesday"], ["wed", "Wednesday"], ["thu", "Thursday"], ["fri", "Friday"], ["sat", "Saturday"], ["sun", "Sunday"]];
const SETTLED_MILLISECONDS = 150;
const SLOTS = 10;

/**
 * @param {import("../main.js").Context} context
 * @param {any} given The cadence to begin with.
 */
export function cadenceFields({ session: { api, collection }, signal }, given) {
  const types = TYPES.map(([value, text]) => h("label", {},
    h("input", { type: "radio", name: "cadence-type", value, checked: value === given.type }), h("span", {}, text)));
  const hour = h("input", { id: "hour", type: "number", min: 0, max: 23, inputmode: "numeric", value: given.hour_utc ?? 9 });
  const minute = h("input", { id: "minute", type: "number", min: 0, max: 59, inputmode: "numeric", value: given.minute_utc ?? 0 });
  const day = h("select", { id: "day" }, DAYS.map(([value, text]) => h("option", { value, selected: value === (given.day_of_week ?? "mon") }, text)));
  const takes = {
    hour: field("cadence.hour_utc", "Hour, UTC", hour),
    minute: field("cadence.minute_utc", "Minute", minute),
    day: field("cadence.day_of_week", "Day", day),
  };
  const preview = h("div", { class: "preview card", "aria-live": "polite", id: "preview" });
  let timer = 0;
  let asked = 0;

  const type = () => element.querySelector("input[name=cadence-type]:checked").value;

  function read() {
    const cadence = { type: type() };
    if (!takes.hour.hidden) cadence.hour_utc = number(hour);
    if (!takes.minute.hidden) cadence.minute_utc = number(minute);
    if (!takes.day.hidden) cadence.day_of_week = day.value;
    return cadence;
  }

  function changed() {
    const kind = type();
    takes.hour.hidden = kind === "manual" || kind === "hourly";
    takes.minute.hidden = kind === "manual";
    takes.day.hidden = kind !== "weekly";
    clearTimeout(timer);
    timer = setTimeout(show, SETTLED_MILLISECONDS);
  }

  async function show() {
    asked += 1;
    const mine = asked;
    const cadence = read();
    try {
      const { slots } = await api.send("POST", ["routines", collection, "preview"], { cadence, count: SLOTS });
      if (mine === asked && !signal.aborted) fill(preview, shown(cadence, slots));
    } catch (error) {
      if (mine === asked && !signal.aborted) fill(preview, refused(error));
    }
  }

  const element = h("div", { class: "cadence-fields", oninput: changed },
    h("fieldset", { class: "segments field", "data-field": "cadence.type" }, h("legend", {}, "Cadence"), types, h("p", { class: "field-error" })),
    h("div", { class: "side-by-side" }, takes.day, takes.hour, takes.minute));
  changed();
  return { element, preview, read };
}

function shown(cadence, slots) {
  return [h("h2", {}, "Next slots"), h("p", { class: "sentence" }, `${cadenceWords(cadence)}.`),
    slots.length ? h("ol", { class: "times" }, slots.map((slot) => h("li", {}, when(slot))))
      : h("p", { class: "quiet" }, "None: it runs when somebody starts it.")];
}

function refused(error) {
  const words = error instanceof Problem ? error.errors.map(({ field: name, message }) => `${name.replace("cadence.", "")} ${message}`) : [];
  return [h("h2", {}, "Next slots"), h("p", { class: "quiet" }, words.length ? `Not yet: ${words.join("; ")}.` : error.message)];
}

/** null, which the service refuses by name, where it is no number. */
function number(input) {
  return input.value === "" ? null : Number(input.value);
}
