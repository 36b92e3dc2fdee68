/**
 * Who is signed in: a key, in this tab alone, and the one collection that it opens.
 */

import { Api } from "./api.js";

const STORED = "routines.key";

/**
 * @typedef {object} Session
 * @property {Api} api
 * @property {string} collection
 * @property {Map<number, string>} routines The names of routines that were seen, by id: runs name the id alone.
 */

/**
 * Sign in; the key is kept once the service has taken it.
 *
 * @param {string} key
 * @returns {Promise<Session>}
 */
export async function signIn(key) {
  const session = await open(key);
  sessionStorage.setItem(STORED, key);
  return session;
}

/** The session of a page that was loaded again; null: nobody is signed in. */
export async function resume() {
  const key = sessionStorage.getItem(STORED);
  return key ? open(key) : null;
}

/** Forget the key. */
export function forget() {
  sessionStorage.removeItem(STORED);
}

async function open(key) {
  const api = new Api(key);
  const [collection] = await api.get(["collections", ""]);
  return { api, collection: collection.name, routines: new Map() };
}
