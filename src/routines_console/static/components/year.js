/**
 * Show the coming year as a calendar: the days on which a schedule has slots that run, the darker the more. Words say the same.
 *
 * @typedef {{found: any, cursor: string | null}} Page Of the service's preview.
 * @typedef {object} Within
 * @property {string | null} from When the year begins; null for now.
 * @property {string | null} ends_at No slot is later.
 * @property {((slot: string) => string | null) | null} leftOut Returns why a slot does not run; null if it does. Null if none is left out.
 */

import { fill, h } from "../dom.js";
import { DAY_MILLISECONDS, HOUR_MILLISECONDS, stamp } from "../load.js";
import { now } from "../time.js";
import { count, listed } from "../words.js";
import { clocksOf, dayOf } from "../zones.js";

const DAYS = 366;
const MINUTE_MILLISECONDS = 60_000;
/** The most slots that the service lists. */
const MOST_SLOTS = 10_000;
/** Months with more days than this are not listed day by day. */
const FEW = 6;
const WEEKDAYS = ["Mon", "", "Wed", "", "Fri", "", ""];
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

/** Build the place of it, empty at first. */
export function year() {
  const element = h("div", { class: "year-place" });

  /**
   * Show a cadence, given the first page of the slots of its year.
   *
   * @param {any} cadence
   * @param {Page} first
   * @param {(cursor: string) => Promise<Page>} read Read a further page.
   * @param {() => boolean} isCurrent
   * @param {Within} within
   */
  async function show(cadence, first, read, isCurrent, { from, ends_at: end, leftOut }) {
    const [slot] = first.found.slots;
    if (!slot) return fill(element);
    const zone = cadence.timezone ?? "UTC";
    const day = (clocksOf(zone)?.(from ?? stamp(now())) ?? slot.at).slice(0, 10);
    const begin = Date.parse(`${day}T00:00:00Z`);
    const name = from ? `The year from ${dayOf(day, now())}` : "The coming year";
    const step = { hourly: HOUR_MILLISECONDS, interval: cadence.every_minutes * MINUTE_MILLISECONDS }[cadence.type];
    if (step && !leftOut) return draw(name, stepped(begin, Date.parse(slot.at), step, end), begin, "", zone);
    const slots = await rest(first, read, isCurrent);
    if (!slots) return;
    const running = leftOut ? slots.filter(({ at }) => leftOut(at) === null) : slots;
    draw(name, byDay(running), begin, slots.length === MOST_SLOTS ? dayIn(slots.at(-1)) : "", zone);
  }

  /** @param {string} name @param {Map<string, number>} counts @param {number} from @param {string} last The last day that is known; empty if all are. @param {string} zone */
  function draw(name, counts, from, last, zone) {
    const days = Array.from({ length: DAYS }, (_, index) => stamp(from + index * DAY_MILLISECONDS).slice(0, 10)).filter((day) => !last || day <= last);
    fill(element, h("figure", { class: "year" },
      h("figcaption", {}, h("strong", {}, name), " ", h("span", { class: "quiet" }, sentence(days, counts, last, zone))),
      picture(days, counts),
      h("ul", { class: "unseen" }, months(days, counts).map((text) => h("li", {}, text)))));
  }

  return { element, show, clear: () => fill(element) };
}

/** Count the slots of each day of a cadence that comes every so many milliseconds, by its first slot: they may be half a million. */
function stepped(from, first, step, end) {
  const after = end ? Date.parse(end) + 1 : Infinity;
  const before = (time) => Math.max(0, Math.ceil((Math.min(time, after) - first) / step));
  const days = Array.from({ length: DAYS }, (_, index) => from + index * DAY_MILLISECONDS);
  return new Map(days.map((day) => [stamp(day).slice(0, 10), before(day + DAY_MILLISECONDS) - before(day)]).filter(([, number]) => number));
}

/** Read the pages after the first, and return the slots of all; null if another cadence is asked for by now. */
async function rest(first, read, isCurrent) {
  const slots = [...first.found.slots];
  for (let { cursor } = first; cursor;) {
    const page = await read(cursor);
    if (!isCurrent()) return null;
    slots.push(...page.found.slots);
    cursor = page.cursor;
  }
  return slots;
}

/** Count slots by the day that the clocks of their cadence show. @returns {Map<string, number>} */
function byDay(slots) {
  const counts = new Map();
  for (const slot of slots) {
    const day = dayIn(slot);
    counts.set(day, (counts.get(day) ?? 0) + 1);
  }
  return counts;
}

function dayIn({ at, local_time: local }) {
  return (local ?? at).slice(0, 10);
}

function sentence(days, counts, last, zone) {
  const running = days.filter((day) => counts.has(day)).length;
  const where = zone === "UTC" ? "" : ` in ${zone}`;
  if (last) return `More slots than can be counted: up to ${dayOf(last, now())}${where} it runs on ${count(running, "day")} of ${days.length.toLocaleString("en")}.`;
  return running === days.length ? `It runs every day${where}.` : `It runs on ${count(running, "day")} of ${days.length.toLocaleString("en")}${where}.`;
}

/** Draw a column for each week, with a cell for each day, Monday first. */
function picture(days, counts) {
  const most = Math.max(...counts.values(), 1);
  const offset = (new Date(days[0]).getUTCDay() + 6) % 7;
  const column = (index) => Math.floor((index + offset) / 7) + 2;
  const cells = days.map((day, index) => {
    const number = counts.get(day) ?? 0;
    return h("i", { class: number ? null : "none", title: `${dayOf(day, now())}: ${number ? count(number, "slot") : "no slots"}`,
      css: { "grid-area": `${(index + offset) % 7 + 2} / ${column(index)}`, "--heat": (number / most).toFixed(2) } });
  });
  const names = days.map((day, index) => day.endsWith("-01") && column(index) < 53 &&
    h("span", { css: { "grid-area": `1 / ${column(index)} / auto / span 3` } }, MONTHS[Number(day.slice(5, 7)) - 1].slice(0, 3)));
  const weekdays = WEEKDAYS.map((name, index) => name && h("span", { class: "weekday", css: { "grid-area": `${index + 2} / 1` } }, name));
  return h("div", { class: "days", "aria-hidden": "true" }, names, weekdays, cells);
}

/** Say for each month on which days it runs: "May 2026: 4, 11, 18 and 25", "June 2026: 22 days". */
function months(days, counts) {
  const names = [...new Set(days.map((day) => day.slice(0, 7)))];
  return names.map((month) => {
    const inside = days.filter((day) => day.startsWith(month) && counts.has(day)).map((day) => String(Number(day.slice(8))));
    const said = inside.length > FEW ? count(inside.length, "day") : listed(inside) || "none";
    return `${MONTHS[Number(month.slice(5)) - 1]} ${month.slice(0, 4)}: ${said}`;
  });
}
