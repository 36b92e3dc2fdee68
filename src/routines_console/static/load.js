/**
 * Read how many slots fall in each hour of a week, and what past ones became.
 *
 * @typedef {object} Hour
 * @property {string} at When it begins.
 * @property {number} slots Slots to come.
 * @property {number} seconds How long their runs usually take, added up; 0 if that is not known.
 * @property {number} started Slots that have started a run.
 * @property {number} skipped
 */

import { now } from "./time.js";

export const HOUR_MILLISECONDS = 3_600_000;
export const DAY_MILLISECONDS = 24 * HOUR_MILLISECONDS;
const DAYS = 7;
/** Of how many calendars the days are marked. */
const MOST_CALENDARS = 10;
const DAY = /^\d{4}-\d\d-\d\d$/;

/** The load of seven days. */
export class Week {
  /**
   * @param {number} begin
   * @param {any[]} buckets Of the service, by hour.
   * @param {number | null} most How many runs the collection may have at once; null for no limit.
   * @param {any[]} calendars
   * @param {number} unmarked How many more calendars there are.
   */
  constructor(begin, buckets, most, calendars, unmarked) {
    const known = new Map(buckets.map((bucket) => [bucket.at, hourOf(bucket)]));
    this.begin = begin;
    this.most = most;
    this.unmarked = unmarked;
    this.days = Array.from({ length: DAYS }, (_, index) => stamp(begin + index * DAY_MILLISECONDS));
    /** @type {Hour[]} In order. */
    this.hours = Array.from({ length: DAYS * 24 }, (_, index) => {
      const at = stamp(begin + index * HOUR_MILLISECONDS);
      return known.get(at) ?? hourOf({ at, slots: 0, expected_seconds: 0, started: 0, skipped: 0 });
    });
    /** @type {Map<string, string[]>} What calendars call the days that they name. */
    this.named = new Map(this.days.map((day) => [day, calendars.flatMap((each) => labels(each, day.slice(0, 10)))]));
  }

  /** Return whether the runs of an hour usually take longer than the collection has room for. @param {Hour} hour */
  isOverfull({ seconds }) {
    return this.most !== null && seconds > this.most * 3600;
  }

  /**
   * Return the hours to come of a day that have the fewest slots: of several stretches of such hours the longest.
   *
   * @param {Hour} hour Any hour of the day.
   * @returns {{hours: Hour[], isWhole: boolean} | null} Whether all hours to come are alike; null if the day is over.
   */
  quietest(hour) {
    const first = Math.floor((Date.parse(hour.at) - this.begin) / DAY_MILLISECONDS) * 24;
    const coming = this.hours.slice(first, first + 24).filter(({ at }) => Date.parse(at) + HOUR_MILLISECONDS > now());
    if (!coming.length) return null;
    const fewest = Math.min(...coming.map(({ slots }) => slots));
    /** @type {Hour[][]} */
    const stretches = [[]];
    for (const each of coming) {
      if (each.slots === fewest) stretches.at(-1)?.push(each);
      else stretches.push([]);
    }
    const hours = stretches.reduce((longest, each) => each.length > longest.length ? each : longest);
    return { hours, isWhole: coming.length > 1 && hours.length === coming.length };
  }
}

/**
 * Read a week.
 *
 * @param {import("./session.js").Session} session
 * @param {number} begin
 * @param {AbortSignal} signal
 */
export async function readWeek({ api, collection }, begin, signal) {
  const [buckets, { limits }, [calendars, unmarked]] = await Promise.all([
    readLoad({ api, collection }, begin, begin + DAYS * DAY_MILLISECONDS, "hour", signal),
    api.get(["collections", collection, "limits"], {}, signal),
    readCalendars({ api, collection }, signal),
  ]);
  const most = limits.find(({ name }) => name === "max_concurrent_runs")?.value ?? null;
  return new Week(begin, buckets, most, calendars, unmarked);
}

/** Read the first calendars of the collection with their days. Returns them, and how many more there are. */
async function readCalendars({ api, collection }, signal) {
  const listed = await api.get(["calendars", collection], {}, signal);
  const read = listed.slice(0, MOST_CALENDARS).map(({ name }) => api.get(["calendars", collection, name], {}, signal));
  return [await Promise.all(read), listed.length - read.length];
}

/**
 * Read the load between two times, in buckets that have any.
 *
 * @param {Pick<import("./session.js").Session, "api" | "collection">} session
 * @param {number} from
 * @param {number} to
 * @param {"hour" | "minute"} bucket
 * @param {AbortSignal} signal
 */
export async function readLoad({ api, collection }, from, to, bucket, signal) {
  return (await api.get(["schedule-load", collection], { from: stamp(from), to: stamp(to), bucket }, signal)).buckets;
}

/** Return when the week begins that an address names: today, unless it names another day. @param {string} [day] */
export function beginOf(day = "") {
  const given = DAY.test(day) ? Date.parse(day) : NaN;
  return Number.isNaN(given) ? today() : given;
}

/** Return 00:00 UTC of today. */
export function today() {
  return now() - now() % DAY_MILLISECONDS;
}

/** Return a time as the service writes it. @param {number} milliseconds */
export function stamp(milliseconds) {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}

/** @returns {Hour} */
function hourOf({ at, slots, expected_seconds: seconds, started, skipped }) {
  return { at, slots, seconds, started, skipped };
}

/** Return what a calendar calls a day; nothing if it does not name it. */
function labels({ name, days }, day) {
  const found = days.find(({ from, to = from }) => from <= day && day <= to);
  return found ? [found.label ? `${found.label} (${name})` : name] : [];
}
