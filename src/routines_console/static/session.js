/**
 * Hold the session: an API key, kept in this tab only, and the one collection that it opens.
 */

import { Api } from "./api.js";

const STORED = "routines.key";
const SINGLE_KEYS = "routines.single-keys";

/**
 * @typedef {object} Session
 * @property {Api} api
 * @property {string} collection
 * @property {Map<number, string>} routines Names of the routines seen so far, by id: a run carries only the id.
 * @property {Promise<import("./cadences.js").CadenceType[]> | null} cadenceTypes Loaded once; null until a form needs it.
 * @property {import("./fleet.js").Fleet | null} fleet The routines as the overview has read them last; null until it has.
 * @property {import("./bulk/work.js").Work | null} work What is being done with several routines, or was done; null if nothing.
 */

/**
 * Sign in, and store the key once the service has accepted it.
 *
 * @param {string} key
 * @returns {Promise<Session>}
 */
export async function signIn(key) {
  const session = await open(key);
  sessionStorage.setItem(STORED, key);
  return session;
}

/** Return the session of a page that was reloaded, or null if nobody is signed in. */
export async function resume() {
  const key = sessionStorage.getItem(STORED);
  return key ? open(key) : null;
}

/** Forget the key, and what was chosen in this tab. */
export function forget() {
  sessionStorage.removeItem(STORED);
  sessionStorage.removeItem(SINGLE_KEYS);
}

/** Return whether shortcuts of a single key are on, as they are until they are turned off in this tab. */
export function hasSingleKeys() {
  return sessionStorage.getItem(SINGLE_KEYS) !== "off";
}

/** Turn shortcuts of a single key on or off. @param {boolean} isOn */
export function setSingleKeys(isOn) {
  if (isOn) sessionStorage.removeItem(SINGLE_KEYS);
  else sessionStorage.setItem(SINGLE_KEYS, "off");
}

/** @returns {Promise<Session>} */
async function open(key) {
  const api = new Api(key);
  const [collection] = await api.get(["collections", ""]);
  return { api, collection: collection.name, routines: new Map(), cadenceTypes: null, fleet: null, work: null };
}
