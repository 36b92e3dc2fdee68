/**
 * Remember which troubles the user has seen, in this browser: ids, kinds and times, nothing that a task or a person has written. A trouble
 * that comes after it is a new one.
 */

const STORED = "routines.seen";
/** Of how many routines; the oldest are forgotten. */
const MOST = 1000;
/** What was seen, by the routine. @type {Map<string, string>} */
const seen = new Map(read());

/**
 * Return whether the user has seen what is wrong with a routine.
 *
 * @param {any} routine
 * @param {import("./health.js").Health} health
 */
export function isSeen(routine, health) {
  return seen.get(nameOf(routine)) === sign(health);
}

/**
 * Note that the user has seen it, or take that back.
 *
 * @param {any} routine
 * @param {import("./health.js").Health} health
 * @param {boolean} has
 */
export function setSeen(routine, health, has) {
  seen.delete(nameOf(routine));
  if (has) seen.set(nameOf(routine), sign(health));
  for (const oldest of [...seen.keys()].slice(0, -MOST)) seen.delete(oldest);
  try {
    localStorage.setItem(STORED, JSON.stringify([...seen]));
  } catch {
    // A browser that stores nothing forgets it with the page.
  }
}

function nameOf({ collection_name: collection, id }) {
  return `${collection}/${id}`;
}

function sign({ kind, run, at }) {
  return `${kind} ${run ?? ""} ${at ?? ""}`;
}

/** @returns {[string, string][]} */
function read() {
  try {
    return JSON.parse(localStorage.getItem(STORED) ?? "[]");
  } catch {
    return [];
  }
}
