/**
 * Preview a schedule: its next slots in UTC and in local time, those that are left out, what to know about them, and the days of the
 * coming year on which it runs.
 *
 * @typedef {{starts_at: string | null, ends_at: string | null, calendar: any, active_hours: any}} Limits When it does not run, whatever
 *   the cadence; null where nothing is set.
 */

import { Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { exclusions, OUTSIDE, stretches } from "../exclusions.js";
import { stamp } from "../load.js";
import { spoken } from "../rhythms.js";
import { now, when } from "../time.js";
import { cadenceWords, count, label } from "../words.js";
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
  /** Those that were asked for, with their days. @type {Map<string, Promise<any>>} */
  const calendars = new Map();
  let asked = 0;

  /**
   * Show a schedule. A late answer does not replace that to a newer one.
   *
   * @param {any} cadence
   * @param {Limits} limits
   * @returns {Promise<string[] | null>} Its next slots; null if it is not valid, or was replaced by a newer one.
   */
  async function show(cadence, limits) {
    asked += 1;
    const mine = asked;
    const isCurrent = () => mine === asked && !signal.aborted;
    try {
      if (cadence.type !== "manual" && Object.values(limits).some((each) => each !== null)) return await look(cadence, limits, null, isCurrent);
      const { slots } = await api.send("POST", ["cadence-preview", collection], { cadence, count: SLOTS });
      if (!isCurrent()) return null;
      fill(card, shown(cadence, stretches(slots, null, SLOTS), new Map()));
      if (cadence.type === "manual") days.clear();
      else look(cadence, limits, slots, isCurrent).catch((error) => withoutYear(error, isCurrent));
      return slots;
    } catch (error) {
      if (!isCurrent()) return null;
      calendars.clear();
      fill(card, refused(error));
      days.clear();
      return [];
    }
  }

  /**
   * Show what is known of a year: the coming one, or that which begins with the first slot.
   *
   * @param {any} cadence
   * @param {Limits} limits
   * @param {string[] | null} known The next slots; null if they are to be taken from the year.
   * @param {() => boolean} isCurrent
   * @returns {Promise<string[] | null>} The next slots; null if another schedule is asked for by now.
   */
  async function look(cadence, limits, known, isCurrent) {
    const { starts_at, ends_at } = limits;
    const from = starts_at && Date.parse(starts_at) > now() ? starts_at : null;
    const read = (cursor) => api.pageOf(["cadence-preview", collection], { cadence, task: task(), from, starts_at, ends_at }, cursor);
    const [page, leftOut] = await Promise.all([read(null), leavingOut(cadence, limits)]);
    if (!isCurrent()) return null;
    const { slots, warnings } = page.found;
    const found = stretches(known ?? slots.map(({ at }) => at), leftOut, SLOTS);
    const notes = new Map(slots.map((slot) => [slot.at, NOTES[slot.dst]]));
    const next = found.filter(({ words }) => words === null).map(({ at }) => at);
    fill(card, shown(cadence, found, notes), moving(limits, found),
      slots.length > 0 && !next.length && h("p", { class: "notice" }, `None of its next ${count(slots.length, "slot")} runs.`),
      warnings.map((text) => h("p", { class: "notice" }, text)));
    days.show(cadence, page, read, isCurrent, { from, ends_at, leftOut }).catch((error) => withoutYear(error, isCurrent));
    return next;
  }

  /** Return a function that says why a slot is left out; null if none is. */
  async function leavingOut(cadence, { calendar, active_hours }) {
    if (!calendar && !active_hours) return null;
    const named = await Promise.all((calendar?.exclude ?? []).map((name) => {
      if (!calendars.has(name)) calendars.set(name, api.get(["calendars", collection, name], {}, signal));
      return calendars.get(name);
    }));
    return exclusions({ calendar, active_hours }, cadence.timezone ?? "UTC", named);
  }

  /** Show no year if the service has no time for it. */
  function withoutYear(error, isCurrent) {
    if (isCurrent()) days.clear();
    if (!(error instanceof Problem)) throw error;
  }

  return { card, year: days.element, show };
}

/**
 * @param {any} cadence
 * @param {import("../exclusions.js").Stretch[]} found
 * @param {Map<string, string>} notes What to know about single slots.
 */
function shown(cadence, found, notes) {
  const zone = cadence.timezone && cadence.timezone !== "UTC" ? cadence.timezone : ownZone();
  const clocks = zone === "UTC" ? null : clocksOf(zone);
  const none = cadence.type === "manual" ? "None: it runs only when someone starts it." : "None.";
  return [
    h("h2", {}, "Next slots"), h("p", { class: "sentence" }, `${cadenceWords(cadence)}.`),
    clocks && found.length > 0 && h("p", { class: "zones hint", "aria-hidden": "true" }, h("span", {}, "UTC"), h("span", {}, zone)),
    found.length ? h("ol", { class: "times" }, found.map(({ at, words, count: slots }) => h("li", {}, words !== null ? gap(clocks?.(at) ?? at, slots, words)
      : [clocks ? both(at, clocks, zone) : when(at), notes.get(at) && h("p", { class: "hint" }, notes.get(at))])))
      : h("p", { class: "quiet" }, none),
    clocks && found.length > 0 && summerTime(cadence, clocks, zone),
  ];
}

/** Say that slots are left out: "Fri 25 Dec left out: Christmas", "14 slots left out: outside active hours". */
function gap(first, slots, words) {
  return h("span", { class: "quiet" }, `${slots === 1 ? dayOf(first, now()) : count(slots, "slot")} left out: ${words}`);
}

/** Say that slots which are left out may move: to when, the service decides. @param {Limits} limits @param {import("../exclusions.js").Stretch[]} found */
function moving({ calendar, active_hours: hours }, found) {
  const reasons = found.map(({ words }) => words).filter((words) => words !== null);
  const to = { next_day: "the next day", next_business_day: "the next business day" }[calendar?.on_excluded];
  return [
    to && reasons.some((words) => words !== OUTSIDE) && h("p", { class: "hint" }, `A slot on a day of a calendar moves to ${to}, unless the next slot comes first.`),
    hours?.outside === "defer" && reasons.includes(OUTSIDE) && h("p", { class: "hint" }, "A slot outside active hours waits for the next window, unless the next slot comes first."),
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
