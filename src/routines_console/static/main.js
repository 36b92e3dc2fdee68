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
import { address } from "./dom.js";
import { failure } from "./components/failure.js";
import { frame } from "./components/frame.js";
import { openPalette } from "./components/palette.js";
import { Entrance } from "./entrance.js";
import { everywhere } from "./everywhere.js";
import { listen } from "./keys.js";
import { Places } from "./places.js";
import { go, match, note, place } from "./router.js";
import { ROUTES } from "./routes.js";
import { prefix } from "./scope.js";
import { hasChanges, release, watch } from "./unsaved.js";

const NO_SUCH_PAGE = { title: "Page not found", detail: "The console has no page at this address.", advice: "Check the address for a typing error." };

let leaving = new AbortController();
const places = new Places();
const shell = frame({ signOut: (collection) => entrance.signOut(collection), addKey: () => entrance.addKey(), find, turnClock });
const entrance = new Entrance(shell, { open, leave: () => leaving.abort() });

addEventListener("hashchange", moved);
listen(find);
addEventListener("beforeunload", (event) => {
  if (hasChanges(document.body) || entrance.session?.work?.isRunning) event.preventDefault();
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
  const { session } = entrance;
  const left = collection !== null && session?.collection !== collection ? session?.work : null;
  if (!hasChanges(document.body) && !left?.goesOn) {
    places.leave();
    return open();
  }
  const { hash } = new URL(event.newURL);
  history.pushState(null, "", event.oldURL);
  if (await maySetAside() && await mayStop(left, `Switch to ${collection}`)) done(hash);
}

function find() {
  const { session } = entrance;
  if (!session || !shell.element.isConnected) return;
  const actions = { addKey: () => entrance.addKey(), turnClock, signOut: (collection) => entrance.signOut(collection) };
  openPalette(session, shell.say, everywhere(session.collection, actions));
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

/** Open the page of the address, at the place where the user was on it before. */
function open() {
  return show(undefined, places.arrive());
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
    const session = await entrance.use(collection, signal);
    if (!session) return;
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
    if (!signal.aborted) shell.opened({ name: "Error", body: failure(error, { again: () => show() }) });
  }
}

open();
