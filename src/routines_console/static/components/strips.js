/**
 * Read the latest outcomes of the routines in a list as their rows come near the screen, draw their strips, and keep them.
 */

import { fill } from "../dom.js";
import { latest } from "../fleet.js";
import { SLOTS, strip } from "./strip.js";

/** How far a row may be from the screen when its strip is read, as a part of the screen's height. */
const MARGIN = "50%";

export class Strips {
  #session;
  #signal;
  #observer;
  /** The routines of the list, by their ids. @type {Map<number, any>} */
  #routines = new Map();
  /** The latest outcomes, by the routine. @type {Map<number, any>} */
  #recents = new Map();
  /** Which request was the last to ask for a routine: only its answer is taken. @type {Map<number, number>} */
  #askedBy = new Map();
  #asked = 0;
  /** Routines to ask for again. @type {Set<number>} */
  #stale = new Set();

  /**
   * @param {import("../session.js").Session} session
   * @param {AbortSignal} signal
   */
  constructor(session, signal) {
    [this.#session, this.#signal] = [session, signal];
    this.#observer = new IntersectionObserver((seen) => this.#read(seen.filter(({ isIntersecting }) => isIntersecting).map(({ target }) => target)), { rootMargin: MARGIN });
    signal.addEventListener("abort", () => this.#observer.disconnect());
  }

  /** Return the latest outcomes of a routine; undefined while they are not known. @param {number} id */
  of(id) {
    return this.#recents.get(id);
  }

  /**
   * Watch the strips of a list that has been drawn, and read those that are missing.
   *
   * @param {HTMLElement} list Each place of a strip has the id of its routine as `data-strip`.
   * @param {any[]} routines
   */
  watch(list, routines) {
    this.#observer.disconnect();
    this.#routines = new Map(routines.map((routine) => [routine.id, routine]));
    for (const place of list.querySelectorAll("[data-strip]")) if (this.#isMissing(idOf(place))) this.#observer.observe(place);
  }

  /** Have strips read again when they are shown next. @param {Iterable<number>} [ids] Of these routines; all, if it is left out. */
  spoil(ids = this.#askedBy.keys()) {
    for (const id of ids) this.#stale.add(id);
  }

  #isMissing(id) {
    return this.#stale.has(id) || !this.#askedBy.has(id);
  }

  /** Read what is missing at these places, in one request. @param {Element[]} places */
  async #read(places) {
    const ids = places.map(idOf).filter((id) => this.#isMissing(id));
    if (!ids.length) return;
    this.#asked += 1;
    const mine = this.#asked;
    for (const id of ids) {
      this.#stale.delete(id);
      this.#askedBy.set(id, mine);
    }
    const isNewest = (id) => this.#askedBy.get(id) === mine;
    try {
      for (const [id, recent] of await latest(this.#session, ids, SLOTS, this.#signal)) {
        if (!isNewest(id)) continue;
        this.#recents.set(id, recent);
        this.#draw(id, recent);
      }
    } catch (error) {
      for (const id of ids.filter(isNewest)) this.#askedBy.delete(id);
      throw error;
    }
  }

  /** Draw the strip of a routine, if the list still has it. */
  #draw(id, { outcomes }) {
    const routine = this.#routines.get(id);
    for (const place of routine ? document.querySelectorAll(`[data-strip="${Number(id)}"]`) : []) fill(place, strip(outcomes, routine));
  }
}

/** @param {Element} place */
function idOf(place) {
  return Number(place.getAttribute("data-strip"));
}
