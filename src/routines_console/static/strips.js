/**
 * Read the latest outcomes of the routines that a list shows, in one request for all that are missing, and keep them.
 */

import { latest } from "./fleet.js";
import { SLOTS } from "./components/strip.js";

export class Strips {
  #session;
  #signal;
  /** The latest outcomes, by the routine. @type {Map<number, any>} */
  #recents = new Map();
  /** Which request was the last to ask for a routine: only its answer is taken. @type {Map<number, number>} */
  #askedBy = new Map();
  #asked = 0;
  /** Routines to ask for again. @type {Set<number>} */
  #stale = new Set();

  /**
   * @param {import("./session.js").Session} session
   * @param {AbortSignal} signal
   */
  constructor(session, signal) {
    [this.#session, this.#signal] = [session, signal];
  }

  /** Return the latest outcomes of a routine; undefined while they are not known. @param {number} id */
  of(id) {
    return this.#recents.get(id);
  }

  /**
   * Read what is missing of these routines.
   *
   * @param {any[]} routines
   * @param {(routine: any, recent: any) => void} draw Called with each routine whose outcomes were read.
   */
  async fill(routines, draw) {
    const missing = new Map(routines.filter(({ id }) => this.#stale.has(id) || !this.#askedBy.has(id)).map((routine) => [routine.id, routine]));
    if (!missing.size) return;
    const ids = [...missing.keys()];
    const mine = this.#begin(ids);
    const isNewest = (id) => this.#askedBy.get(id) === mine;
    try {
      for (const [id, recent] of await latest(this.#session, ids, SLOTS, this.#signal)) {
        if (!isNewest(id)) continue;
        this.#recents.set(id, recent);
        draw(missing.get(id), recent);
      }
    } catch (error) {
      for (const id of ids.filter(isNewest)) this.#askedBy.delete(id);
      throw error;
    }
  }

  /** Take over what was read elsewhere. @param {Map<number, any>} recents */
  take(recents) {
    this.#begin([...recents.keys()]);
    for (const [id, recent] of recents) this.#recents.set(id, recent);
  }

  /** Have all of them read again when they are shown next. */
  spoil() {
    this.#stale = new Set(this.#recents.keys());
  }

  /** @param {number[]} ids */
  #begin(ids) {
    this.#asked += 1;
    for (const id of ids) {
      this.#stale.delete(id);
      this.#askedBy.set(id, this.#asked);
    }
    return this.#asked;
  }
}
