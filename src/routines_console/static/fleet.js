/**
 * Load all routines of the collection with their latest outcomes, page by page so that the first page shows at once.
 *
 * @typedef {{routine: any, recent: any, health: import("./health.js").Health}} Entry
 */

import { healthOf } from "./health.js";
import { isSeen } from "./seen.js";
import { now } from "./time.js";

/** How many routines are read at once. */
export const PAGE = 1000;
const BATCH = 500;
/** The orders of the list, by their names in the address: how two routines compare. @type {Record<string, (one: Entry, other: Entry) => number>} */
const ORDERS = {
  "": (one, other) => one.health.rank - other.health.rank,
  name: (one, other) => compare(one.routine.name, other.routine.name),
  // What has no such time comes last.
  next: (one, other) => compare(one.routine.next_run_at ?? "~", other.routine.next_run_at ?? "~"),
  last: (one, other) => compare(other.health.at ?? "", one.health.at ?? ""),
};

function compare(one, other) {
  return one < other ? -1 : Number(one > other);
}
/** Behind all that needs attention, before the rest. */
const SEEN_RANK = 7.5;

export class Fleet {
  /**
   * @param {import("./session.js").Session} session
   * @param {AbortSignal} signal
   */
  constructor(session, signal) {
    this.session = session;
    this.signal = signal;
    /** @type {Entry[]} */
    this.entries = [];
    this.isWhole = false;
    /** @type {string | null} */
    this.cursor = null;
    /** Up to when changes are known, by the service's clock, in milliseconds. */
    this.readAt = now();
  }

  /** Load one more page. */
  async more() {
    const { api, collection } = this.session;
    const query = { limit: PAGE, cursor: this.cursor };
    const { items, cursor } = await api.page(["routines", collection], query, this.signal);
    const recents = await latest(this.session, items.map((routine) => routine.id), 1, this.signal);
    if (!this.entries.length) this.readAt = now();
    for (const routine of items) {
      const recent = recents.get(routine.id) ?? null;
      this.session.routines.set(routine.id, routine.name);
      this.entries.push({ routine, recent, health: judged(routine, recent) });
    }
    this.cursor = cursor;
    this.isWhole = cursor === null;
  }

  /**
   * Take over what has changed since: read the outcomes of the routines that a feed names, and judge all of them anew.
   *
   * @param {{routines: any[], deleted: number[]}} changes
   */
  async take({ routines, deleted }) {
    const ids = routines.map(({ id }) => id);
    const recents = await latest(this.session, ids, 1, this.signal);
    const gone = new Set([...ids, ...deleted]);
    this.entries = this.entries.filter(({ routine }) => !gone.has(routine.id));
    for (const routine of routines) {
      const recent = recents.get(routine.id) ?? null;
      this.session.routines.set(routine.id, routine.name);
      this.entries.push({ routine, recent, health: judged(routine, recent) });
    }
    if (ids.length) this.entries.sort(({ routine: one }, { routine: other }) => order(one.task_name, other.task_name) || order(one.name, other.name));
  }

  /** Judge all routines anew, since a slot may have become overdue. Returns whether that changed anything. */
  judge() {
    let hasChanged = false;
    for (const entry of this.entries) {
      const health = judged(entry.routine, entry.recent);
      hasChanged ||= health.kind !== entry.health.kind || health.rank !== entry.health.rank;
      entry.health = health;
    }
    return hasChanged;
  }

  /**
   * Return the routines that match, in the order that was chosen: at first those that need attention most.
   *
   * @param {{q: string, state: string, task: string, sort: string}} filter
   * @param {(id: number) => boolean} isWanted
   */
  find({ q, state, task, sort }, isWanted) {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = ({ routine, health: { group } }) =>
      isWanted(routine.id) && (!task || routine.task_name === task) && (!state || group === state)
      && words.every((word) => routine.name.includes(word) || routine.task_name.includes(word));
    return this.entries.filter(matches).sort(ORDERS[sort]);
  }

  /** Count the routines of each group. */
  tally() {
    const counts = { attention: 0, running: 0, other: 0, well: 0, silent: 0, paused: 0 };
    for (const entry of this.entries) counts[entry.health.group] += 1;
    return counts;
  }

  /** Count the routines that need attention and were not seen. */
  unseen() {
    return this.entries.filter(({ health }) => health.group === "attention" && !health.isSeen).length;
  }

  /** Return the names of all tasks that have routines. */
  tasks() {
    return [...new Set(this.entries.map(({ routine }) => routine.task_name))];
  }

  /** Return the routine that is due next, or null if none is. */
  next() {
    const coming = this.entries.filter(({ routine }) => routine.next_run_at);
    return coming.reduce((first, entry) =>
      !first || entry.routine.next_run_at < first.routine.next_run_at ? entry : first, /** @type {Entry | null} */ (null));
  }
}

/** Return the health of a routine. What the user has seen comes after what needs attention otherwise. */
function judged(routine, recent) {
  const health = healthOf(routine, recent);
  return health.group === "attention" && isSeen(routine, health) ? { ...health, rank: SEEN_RANK, isSeen: true } : health;
}

/** Compare as the service sorts: by the characters. @param {string} one @param {string} other */
function order(one, other) {
  return one < other ? -1 : Number(one > other);
}

/**
 * Return the latest outcomes of these routines, by routine id.
 *
 * @param {import("./session.js").Session} session
 * @param {number[]} ids
 * @param {number} slots How many outcomes to load of each routine.
 * @param {AbortSignal} signal
 * @returns {Promise<Map<number, any>>}
 */
export async function latest(session, ids, slots, signal) {
  const batches = [];
  for (let first = 0; first < ids.length; first += BATCH) batches.push(ids.slice(first, first + BATCH));
  const answers = await Promise.all(batches.map((batch) =>
    session.api.get(["db", "outcomes", session.collection], { ids: batch.join(","), slots }, signal)));
  return new Map(answers.flat().map((recent) => [recent.routine_id, recent]));
}
