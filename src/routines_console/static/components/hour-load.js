/**
 * Show what else starts in the hour of a time, minute by minute, and offer a quieter minute.
 */

import { button, fill, h } from "../dom.js";
import { HOUR_MILLISECONDS, readLoad, stamp } from "../load.js";
import { now } from "../time.js";
import { count } from "../words.js";
import { dayOf, timeOf } from "../zones.js";
import { MINUTES, minuteBars, two } from "./minute-bars.js";

const MINUTE_MILLISECONDS = 60_000;

/**
 * Build the place of it, empty at first.
 *
 * @param {import("../main.js").Context} context
 * @param {any} routine The routine that is edited: its own next slot does not count.
 * @param {(minute: number) => void} use Called with the minute that the user takes instead.
 */
export function hourLoad({ session, signal }, routine, use) {
  const element = h("div", { class: "hour-load" });
  const said = h("div", { class: "suggestion", "aria-live": "polite" });
  /** Of the hours seen so far, by their beginning. @type {Map<number, Promise<number[]>>} */
  const known = new Map();
  let asked = 0;

  /** Return how much starts in each minute from `begin` on. */
  async function read(begin) {
    const counts = new Array(MINUTES).fill(0);
    for (const { at, slots, started, skipped } of await readLoad(session, begin, begin + HOUR_MILLISECONDS, "minute", signal)) {
      counts[(Date.parse(at) - begin) / MINUTE_MILLISECONDS] += slots + started + skipped;
    }
    const own = routine.next_run_at ? Math.floor((Date.parse(routine.next_run_at) - begin) / MINUTE_MILLISECONDS) : -1;
    if (counts[own] > 0) counts[own] -= 1;
    return counts;
  }

  /**
   * Show the hour of the next slot. A late answer does not replace that to a newer one.
   *
   * @param {{minute: number, hour: number | null} | null} time The time that was typed; null if there is no minute to move.
   * @param {string[]} slots The next slots.
   */
  async function show(time, slots) {
    asked += 1;
    const mine = asked;
    if (!time || !slots.length) return fill(element);
    const begin = Date.parse(slots[0]) - time.minute * MINUTE_MILLISECONDS;
    try {
      known.set(begin, known.get(begin) ?? read(begin));
      const counts = await known.get(begin) ?? [];
      if (mine === asked) draw(time, begin, counts);
    } catch {
      known.delete(begin);
      if (mine === asked && !signal.aborted) fill(element, h("p", { class: "hint" }, "What else starts in this hour could not be read."));
    }
  }

  function draw({ minute: wish, hour }, begin, counts) {
    const name = (minute) => `${hour === null ? "" : two(hour)}:${two(minute)}`;
    const quiet = quieter(counts, wish);
    fill(said, h("span", {}, sentence(counts, wish, quiet, name)),
      quiet !== null && button(`Use ${name(quiet)}`, () => use(quiet), { id: "use-quiet-minute" }));
    fill(element,
      minuteBars(counts, (minute) => `${name(minute)}: ${starts(counts[minute])}`, { wish, quiet }),
      h("div", { class: "ruler", "aria-hidden": "true" }, [0, 15, 30, 45].map((minute) => h("span", {}, name(minute))), h("span", {}, hour === null ? ":59" : name(59))),
      said,
      h("p", { class: "hint" }, `Starts of other routines in the hour from ${dayOf(stamp(begin), now())}, ${timeOf(stamp(begin))} UTC, that of the next slot.`, h("span", { class: "unseen" }, ` ${inWords(counts, name)}`)));
  }

  return { element, show };
}

/** Return the nearest minute with the fewest starts; null if none has fewer than the wish. */
function quieter(counts, wish) {
  const fewest = Math.min(...counts);
  if (counts[wish] <= fewest) return null;
  const minutes = counts.map((_, minute) => minute).filter((minute) => counts[minute] === fewest);
  return minutes.reduce((best, minute) => Math.abs(minute - wish) < Math.abs(best - wish) ? minute : best);
}

/** Compare the wish with a quieter minute: "09:00 has 14 starts, 09:07 none." */
function sentence(counts, wish, quiet, name) {
  if (quiet !== null) return `${name(wish)} has ${starts(counts[wish])}, ${name(quiet)} ${counts[quiet] ? `only ${counts[quiet]}` : "none"}.`;
  if (!counts[wish]) return `Nothing else starts at ${name(wish)}.`;
  return `${name(wish)} has ${starts(counts[wish])}, and no minute of the hour has fewer.`;
}

function starts(number) {
  return number ? count(number, "start") : "no starts";
}

function inWords(counts, name) {
  const busy = counts.map((number, minute) => number ? `${name(minute)} ${starts(number)}` : null).filter(Boolean);
  return busy.length ? `They are: ${busy.join(", ")}.` : "There are none.";
}
