/**
 * Hold the sessions: an API key for each collection. They are in this tab only; another tab of the console may ask for them (see `tabs.js`).
 */

import { Api } from "./api.js";
import { answerTabs, askTabs, forgetInTabs } from "./tabs.js";

const STORED = "routines.keys";
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

/** The keys by collection, that of the newest page last. @type {Map<string, string>} */
const keys = new Map(JSON.parse(sessionStorage.getItem(STORED) ?? "[]"));
/** Those that a page has needed, by collection. @type {Map<string, Session>} */
const opened = new Map();

/**
 * Sign in, and store the key once the service has accepted it.
 *
 * @param {string} key
 * @returns {Promise<Session>}
 */
export async function signIn(key) {
  const session = await open(key);
  hold(session.collection, key);
  opened.set(session.collection, session);
  return session;
}

/**
 * Return the session of a collection, and remember that it is the newest; null if there is no key for it.
 *
 * @param {string} collection
 * @returns {Promise<Session | null>}
 */
export async function sessionOf(collection) {
  const key = keys.get(collection);
  if (!key) return null;
  const session = opened.get(collection) ?? await open(key);
  opened.set(collection, session);
  hold(collection, key);
  return session;
}

/**
 * Return the collection that an address belongs to: the one that it names, else that of the newest page. Other tabs are asked for the
 * keys if this one has none for it. Null if nobody is signed in.
 *
 * @param {string | null} named
 */
export async function findCollection(named) {
  const isEnough = () => named ? keys.has(named) : keys.size > 0;
  if (!isEnough()) await askTabs(isEnough);
  return named ?? [...keys.keys()].at(-1) ?? null;
}

/** Return the collections that there are keys for, by name. */
export function collections() {
  return [...keys.keys()].sort();
}

/** Forget the key of a collection, or all of them and what was chosen in this tab, here and in other tabs. @param {string | null} collection Null for all. */
export function signOut(collection) {
  forget(collection);
  forgetInTabs(collection);
}

/** Do the same in this tab only. @param {string | null} collection */
export function forget(collection) {
  for (const each of collection === null ? [...keys.keys()] : [collection]) {
    keys.delete(each);
    opened.delete(each);
  }
  store();
  if (!keys.size) sessionStorage.removeItem(SINGLE_KEYS);
}

/**
 * Answer other tabs that ask for keys, and take theirs.
 *
 * @param {(collection: string | null) => void} forgotten Called when one of them has signed out.
 * @param {() => void} received Called when keys have come.
 */
export function shareKeys(forgotten, received) {
  answerTabs(() => [...keys], forgotten, (found) => {
    for (const [collection, key] of found) if (!keys.has(collection)) hold(collection, key);
    received();
  });
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

/** @param {string} collection @param {string} key */
function hold(collection, key) {
  keys.delete(collection);
  keys.set(collection, key);
  store();
}

function store() {
  if (keys.size) sessionStorage.setItem(STORED, JSON.stringify([...keys]));
  else sessionStorage.removeItem(STORED);
}

/** @returns {Promise<Session>} */
async function open(key) {
  const api = new Api(key);
  const [collection] = await api.get(["collections", ""]);
  return { api, collection: collection.name, routines: new Map(), cadenceTypes: null, fleet: null, work: null };
}
