/**
 * Preview a cadence: its next slots in UTC and in local time, what to know about them, and the days of the coming year on which it runs.
 */

import { Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { stamp } from "../load.js";
import { spoken } from "../rhythms.js";
import { now, when } from "../time.js";
import { cadenceWords, label } from "../words.js";
import { clockChanges, clocksOf, dayOf, ownZone, timeOf } from "../zones.js";
import { year } from "./year.js";

const SLOTS = 10;
const YEAR_MILLISECONDS = 366 * 86_400_000;
/** The rhythms with one time of the day. */
const TIMED = ["daily", "weekdays", "weekly", "monthly"];
/** What became of a slot at a change of clocks, by the word of the service. */
const NOTES = {
  shifted: "Clocks go forward over its time: it runs at the first minute after.",
  "first of two": "Clocks go back: its time comes twice, and it runs the first time.",
};

/**
 * Build the card of the next slots and the picture of the year.
 *
 * @param {import("../main.js").Context} context
 * @param {() => string} task Return the task that the routine runs.
 */
export function coming({ session: { api, collection }, signal }, task) {
  const card = h("div", { class: "preview card", "aria-live": "polite", id: "preview" });
  const days = year();
  let asked = 0;

  /**
   * Show a cadence. A late answer does not replace that to a newer one.
   *
   * @param {any} cadence
   * @returns {Promise<string[] | null>} Its next slots; null if the cadence is not valid, or was replaced by a newer one.
   */
  async function show(cadence) {
    asked += 1;
    const mine = asked;
    const isCurrent = () => mine === asked && !signal.aborted;
    try {
      const { slots } = await api.send("POST", ["cadence-preview", collection], { cadence, count: SLOTS });
      if (!isCurrent()) return null;
      fill(card, shown(cadence, slots, new Map()));
      look(cadence, slots, isCurrent);
      return slots;
    } catch (error) {
      if (!isCurrent()) return null;
      fill(card, refused(error));
      days.clear();
      return [];
    }
  }

  /** Add what to know about the coming year, unless the service has no time for it. */
  async function look(cadence, slots, isCurrent) {
    if (cadence.type === "manual") return days.clear();
    try {
      const body = { cadence, task: task() };
      const read = (cursor) => api.pageOf(["cadence-preview", collection], body, cursor);
      const page = await read(null);
      if (!isCurrent()) return;
      const notes = new Map(page.found.slots.map((slot) => [slot.at, NOTES[slot.dst]]));
      fill(card, shown(cadence, slots, notes), page.found.warnings.map((text) => h("p", { class: "notice" }, text)));
      await days.show(cadence, page, read, isCurrent);
    } catch (error) {
      if (isCurrent()) days.clear();
      if (!(error instanceof Problem)) throw error;
    }
  }

  return { card, year: days.element, show };
}

function shown(cadence, slots, notes) {
  const zone = cadence.timezone && cadence.timezone !== "UTC" ? cadence.timezone : ownZone();
  const clocks = zone === "UTC" ? null : clocksOf(zone);
  const none = cadence.type === "manual" ? "None: it runs only when someone starts it." : "None.";
  return [
    h("h2", {}, "Next slots"), h("p", { class: "sentence" }, `${cadenceWords(cadence)}.`),
    clocks && slots.length > 0 && h("p", { class: "zones hint", "aria-hidden": "true" }, h("span", {}, "UTC"), h("span", {}, zone)),
    slots.length ? h("ol", { class: "times" }, slots.map((slot) => h("li", {},
      clocks ? both(slot, clocks, zone) : when(slot), notes.get(slot) && h("p", { class: "hint" }, notes.get(slot)))))
      : h("p", { class: "quiet" }, none),
    clocks && slots.length > 0 && summerTime(cadence, clocks, zone),
  ];
}

/** Show a slot in UTC and on other clocks, with their day where it is another one. */
function both(slot, clocks, zone) {
  const local = clocks(slot);
  const [day, localDay] = [dayOf(slot, now()), dayOf(local, now())];
  return h("span", { class: "when" },
    h("time", { datetime: slot }, `${day}, ${timeOf(slot)}`, h("span", { class: "unseen" }, " UTC, ")),
    h("span", { class: "quiet" }, `${localDay === day ? "" : `${localDay}, `}${timeOf(local)}`, h("span", { class: "unseen" }, ` in ${zone}`)));
}

/** Say when the clocks of the zone change in the coming year, and what time it is there, or in UTC, from then on. */
function summerTime(cadence, clocks, zone) {
  const { name, timezone = "UTC" } = spoken(cadence);
  if (!TIMED.includes(name)) return null;
  return clockChanges(clocks, now(), now() + YEAR_MILLISECONDS).map(({ at: moment, isForward }) => {
    const shift = isForward === (timezone === "UTC") ? "an hour later" : "an hour earlier";
    return h("p", { class: "hint clock-change" }, `Clocks in ${zone} go ${isForward ? "forward" : "back"} on ${dayOf(clocks(stamp(moment)), now())}: `,
      `from then on its slots are ${shift} ${timezone === "UTC" ? "there" : "in UTC"}.`);
  });
}

function refused(error) {
  const errors = error instanceof Problem ? error.errors : [];
  const text = errors.map(({ field: name, message }) => `${label(name.replace("cadence.", ""))}: ${message}`).join("; ");
  return [h("h2", {}, "Next slots"), h("p", { class: "quiet" }, text ? `Not valid yet. ${text}.` : error.message)];
}
