/**
 * Start the console: sign in, open pages, and report errors.
 *
 * @typedef {object} Context What every page receives.
 * @property {import("./session.js").Session} session
 * @property {Record<string, string>} params
 * @property {Record<string, string>} query
 * @property {AbortSignal} signal Aborted when the user leaves the page.
 * @property {(text: string) => void} say Shows a short message at the bottom of the screen.
 * @property {(focus?: string) => Promise<void>} reload Loads the page again and focuses the element with this id.
 * @property {any} kept What the page kept when it was left, if Back or Forward leads to it again; null otherwise.
 * @property {(keep: () => any) => void} keep Names what it keeps.
 * @property {(number: number) => void} tell Shows a number in the title of the tab.
 * @property {(hash: string) => void} done Opens another page without asking about changes: they were saved.
 *
 * @typedef {{name: string, body: Node}} View What every page returns: its name, empty for that of the whole console, and its content.
 */

import { Problem } from "./api.js";
import { maySetAside, mayStop } from "./asking.js";
import { setLocal, showsLocal } from "./clock.js";
import { address, fill } from "./dom.js";
import { failure } from "./components/failure.js";
import { frame } from "./components/frame.js";
import { openPalette } from "./components/palette.js";
import { everywhere } from "./everywhere.js";
import { listen } from "./keys.js";
import { Places } from "./places.js";
import { go, match, note, place } from "./router.js";
import { ROUTES } from "./routes.js";
import { home, nameCollection, prefix } from "./scope.js";
import { collections, findCollection, forget, sessionOf, shareKeys, signOut } from "./session.js";
import { hasChanges, release, watch } from "./unsaved.js";
import { signInPage } from "./views/sign-in.js";

const NO_SUCH_PAGE = { title: "Page not found", detail: "The console has no page at this address.", advice: "Check the address for a typing error." };

const REFUSED = "This key no longer works: it was revoked or has expired.";

/** @type {import("./session.js").Session | null} */
let session = null;
let leaving = new AbortController();
const places = new Places();
/** Whether the user is asked for a key because no tab has given one. */
let isWaiting = false;
const shell = frame({ signOut: leave, addKey, find, turnClock });

addEventListener("hashchange", moved);
listen(find);
shareKeys((collection) => forgotten(collection, "You have signed out in another tab."), received);
addEventListener("beforeunload", (event) => {
  if (hasChanges(document.body) || session?.work?.isRunning) event.preventDefault();
});
addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof Problem) {
    event.preventDefault();
    shell.say(event.reason.message);
  } else if (event.reason?.name === "AbortError") event.preventDefault();
});

/**
 * Open the page of the new address, unless that would lose changes that the user wants to keep, or leave work of a collection behind.
 *
 * @param {HashChangeEvent} event
 */
async function moved(event) {
  const { collection } = place();
  const left = collection !== null && session?.collection !== collection ? session?.work : null;
  if (!hasChanges(document.body) && !left?.goesOn) {
    places.leave();
    return show(undefined, places.arrive());
  }
  const { hash } = new URL(event.newURL);
  history.pushState(null, "", event.oldURL);
  if (await maySetAside() && await mayStop(left, `Switch to ${collection}`)) done(hash);
}

function find() {
  if (session && shell.element.isConnected) openPalette(session, shell.say, everywhere(session.collection, { addKey, turnClock, signOut: leave }));
}

/** Show times by the other clock. */
async function turnClock() {
  if (!await maySetAside()) return;
  setLocal(!showsLocal());
  shell.clock();
  await show("clock");
}

/** @param {string} hash */
function done(hash) {
  release(document.body);
  go(hash);
}

/**
 * @param {string} [focus]
 * @param {import("./places.js").Place | null} [back] Where the user was on the page before.
 */
async function show(focus, back = null) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const { collection, path, query } = place();
  try {
    if (!await use(collection, signal)) return;
    if (prefix() && collection === null) note(address(path, query));
    const found = match(ROUTES, path);
    shell.opening(path[0] ?? "");
    shell.tell(0);
    const view = found
      ? await found.view({ session, params: found.params, query, signal, say: shell.say, reload: show, done, kept: back?.kept ?? null, keep: (keep) => { if (!signal.aborted) places.keep(keep); }, tell: (number) => { if (!signal.aborted) shell.tell(number); } })
      : { name: NO_SUCH_PAGE.title, body: failure(new Problem(404, NO_SUCH_PAGE, NO_SUCH_PAGE.advice)) };
    if (signal.aborted) return;
    shell.opened(view, focus ?? back?.focus);
    if (back) scrollTo(0, back.top);
    watch(document.body);
  } catch (error) {
    if (!signal.aborted) showFailure(error);
  }
}

/**
 * Have the session of the collection that the address names, or else keep the one that there is. Returns whether there is one; if not,
 * the user is asked for a key.
 *
 * @param {string | null} named
 * @param {AbortSignal} signal
 */
async function use(named, signal) {
  if (session && (named === null || session.collection === named)) {
    if (!shell.element.isConnected) frameIt(session.collection);
    return true;
  }
  session = null;
  const collection = await findCollection(named);
  if (signal.aborted) return false;
  if (!collection || !collections().includes(collection)) {
    askForKey(named ? `You have no key of ${named} in this tab. Sign in with one to see this page.` : "");
    isWaiting = true;
    return false;
  }
  frameIt(collection);
  const found = await opened(collection);
  if (signal.aborted || !found) return false;
  enter(found);
  return true;
}

/** Return the session of a collection; null if its key no longer works, which the user is told. @param {string} collection */
async function opened(collection) {
  try {
    return await sessionOf(collection);
  } catch (error) {
    if (!(error instanceof Problem && error.status === 401)) throw error;
    forget(collection);
    askForKey(REFUSED);
    return null;
  }
}

/** Put the frame around the page, if it is not there. @param {string} collection */
function frameIt(collection) {
  nameIt(collection);
  if (!shell.element.isConnected) fill(document.body, shell.element);
}

/** Show which collection the page is of, and name it in addresses if there are several. @param {string} collection */
function nameIt(collection) {
  nameCollection(collections().length > 1 ? collection : "");
  shell.collection(collection, collections());
}

/** @param {import("./session.js").Session} found */
function enter(found) {
  isWaiting = false;
  session = found;
  session.api.onRefused = () => {
    forget(found.collection);
    forgotten(found.collection, REFUSED);
  };
  frameIt(found.collection);
}

/** @param {any} error */
function showFailure(error) {
  shell.opened({ name: "Error", body: failure(error, { again: () => show() }) });
}

/** Sign out of a collection, or of all. @param {string | null} collection Null for all. */
async function leave(collection) {
  if (!await maySetAside() || !await mayStop(session?.work, "Sign out")) return;
  signOut(collection);
  forgotten(collection, collection ? `You have signed out of ${collection}.` : "You have signed out, and no tab has the key any more.");
}

/**
 * Leave the page if it is of a collection whose key is gone.
 *
 * @param {string | null} collection Null for all.
 * @param {string} reason
 */
function forgotten(collection, reason) {
  if (!session && !collections().length) return;
  forget(collection);
  if (collection !== null && session?.collection !== collection) {
    if (session) nameIt(session.collection);
    return;
  }
  leaving.abort();
  release(document.body);
  session?.work?.stop();
  session = null;
  askForKey(reason);
}

async function addKey() {
  if (!await maySetAside() || !await mayStop(session?.work, "Leave")) return;
  leaving.abort();
  release(document.body);
  askForKey("");
}

/** Open the page after all if keys come late from another tab, unless the user is typing one. */
function received() {
  const { collection } = place();
  const field = /** @type {HTMLInputElement | null} */ (document.querySelector(".sign-in input"));
  if (isWaiting && !field?.value && (collection === null || collections().includes(collection))) show();
}

/** @param {string} reason */
function askForKey(reason) {
  isWaiting = false;
  const page = signInPage(reason, (found) => arrive(found.collection), collections(), arrive);
  fill(document.body, page);
  document.title = "Sign in · Routines";
  /** @type {HTMLElement} */ (page.querySelector("input")).focus();
}

/** Open the page of the address, if it is of this collection; otherwise the first page of it. @param {string} collection */
function arrive(collection) {
  const { collection: named } = place();
  const isOther = session ? session.collection !== collection : named !== null && named !== collection;
  session = null;
  if (isOther) note(home(collection));
  places.arrive();
  show();
}

show();
