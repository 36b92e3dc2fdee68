/**
 * Let the user in: have the session of the collection that a page is of, ask for a key where there is none, and leave when it is gone.
 */

import { Problem } from "./api.js";
import { maySetAside, mayStop } from "./asking.js";
import { fill } from "./dom.js";
import { note, place } from "./router.js";
import { home, nameCollection } from "./scope.js";
import { collections, findCollection, forget, sessionOf, shareKeys, signOut } from "./session.js";
import { release } from "./unsaved.js";
import { signInPage } from "./views/sign-in.js";

const REFUSED = "This key no longer works: it was revoked or has expired.";

export class Entrance {
  /** The session of the page that is open; null while there is none. @type {import("./session.js").Session | null} */
  session = null;
  /** Whether the user is asked for a key because no tab has given one. */
  #isWaiting = false;
  #shell;
  #open;
  #leave;

  /**
   * @param {ReturnType<import("./components/frame.js").frame>} shell
   * @param {object} page
   * @param {() => void} page.open Opens the page of the address.
   * @param {() => void} page.leave Ends what the page that is open does.
   */
  constructor(shell, { open, leave }) {
    [this.#shell, this.#open, this.#leave] = [shell, open, leave];
    shareKeys((collection) => this.#forgotten(collection, "You have signed out in another tab."), () => this.#received());
  }

  /**
   * Have the session of the collection that the address names, or else keep the one that there is. Returns it; null if there is none:
   * then the user is asked for a key.
   *
   * @param {string | null} named
   * @param {AbortSignal} signal
   */
  async use(named, signal) {
    if (this.session && (named === null || this.session.collection === named)) {
      if (!this.#shell.element.isConnected) this.#frame(this.session.collection);
      return this.session;
    }
    this.session = null;
    const collection = await findCollection(named);
    if (signal.aborted) return null;
    if (!collection || !collections().includes(collection)) {
      this.#askForKey(named ? `You have no key of ${named} in this tab. Sign in with one to see this page.` : "");
      this.#isWaiting = true;
      return null;
    }
    this.#frame(collection);
    const found = await this.#sessionOf(collection);
    if (signal.aborted || !found) return null;
    this.#enter(found);
    return found;
  }

  /** Sign out of a collection, or of all. @param {string | null} collection Null for all. */
  async signOut(collection) {
    if (!await maySetAside() || !await mayStop(this.session?.work, "Sign out")) return;
    signOut(collection);
    this.#forgotten(collection, collection ? `You have signed out of ${collection}.` : "You have signed out, and no tab has the key any more.");
  }

  /** Ask for the key of another collection. */
  async addKey() {
    if (!await maySetAside() || !await mayStop(this.session?.work, "Leave")) return;
    this.#leave();
    release(document.body);
    this.#askForKey("");
  }

  /** Return the session of a collection; null if its key no longer works, which the user is told. @param {string} collection */
  async #sessionOf(collection) {
    try {
      return await sessionOf(collection);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 401)) throw error;
      forget(collection);
      this.#askForKey(REFUSED);
      return null;
    }
  }

  /** @param {import("./session.js").Session} found */
  #enter(found) {
    this.#isWaiting = false;
    this.session = found;
    found.api.onRefused = () => {
      forget(found.collection);
      this.#forgotten(found.collection, REFUSED);
    };
    this.#frame(found.collection);
  }

  /** Put the frame around the page, if it is not there. @param {string} collection */
  #frame(collection) {
    this.#name(collection);
    if (!this.#shell.element.isConnected) fill(document.body, this.#shell.element);
  }

  /** Show which collection the page is of, and name it in addresses if there are several. @param {string} collection */
  #name(collection) {
    nameCollection(collections().length > 1 ? collection : "");
    this.#shell.collection(collection, collections());
  }

  /**
   * Leave the page if it is of a collection whose key is gone.
   *
   * @param {string | null} collection Null for all.
   * @param {string} reason
   */
  #forgotten(collection, reason) {
    if (!this.session && !collections().length) return;
    forget(collection);
    if (collection !== null && this.session?.collection !== collection) {
      if (this.session) this.#name(this.session.collection);
      return;
    }
    this.#leave();
    release(document.body);
    this.session?.work?.stop();
    this.session = null;
    this.#askForKey(reason);
  }

  /** Open the page after all if keys come late from another tab, unless the user is typing one. */
  #received() {
    const { collection } = place();
    const field = /** @type {HTMLInputElement | null} */ (document.querySelector(".sign-in input"));
    if (this.#isWaiting && !field?.value && (collection === null || collections().includes(collection))) this.#open();
  }

  /** @param {string} reason */
  #askForKey(reason) {
    this.#isWaiting = false;
    const page = signInPage(reason, (found) => this.#arrive(found.collection), collections(), (collection) => this.#arrive(collection));
    fill(document.body, page);
    document.title = "Sign in · Routines";
    /** @type {HTMLElement} */ (page.querySelector("input")).focus();
  }

  /** Open the page of the address, if it is of this collection; otherwise the first page of it. @param {string} collection */
  #arrive(collection) {
    const { collection: named } = place();
    const isOther = this.session ? this.session.collection !== collection : named !== null && named !== collection;
    this.session = null;
    if (isOther) note(home(collection));
    this.#open();
  }
}
