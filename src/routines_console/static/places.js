/**
 * Remember where the user was on a page, so that Back and Forward lead to the same place of it. It is kept until the tab is closed or
 * reloaded, and holds nothing that leaves the tab.
 *
 * @typedef {object} Place
 * @property {number} top How far the page was scrolled.
 * @property {string} focus The id of the element that had the focus; empty if it had none.
 * @property {any} kept What the page itself has kept; null if nothing.
 */

const MOST_PLACES = 50;

export class Places {
  /** @type {Map<string, Place>} The newest last. */
  #places = new Map();
  /** The entry of the history that is open. */
  #entry = "";
  #entries = 0;
  #keep = () => null;

  constructor() {
    history.scrollRestoration = "manual";
  }

  /** The page that is open has something of its own to keep. @param {() => any} keep Called when it is left. */
  keep(keep) {
    this.#keep = keep;
  }

  /** Remember the place, since the page is about to be left. */
  leave() {
    if (!this.#entry) return;
    this.#places.delete(this.#entry);
    this.#places.set(this.#entry, { top: scrollY, focus: document.activeElement?.id ?? "", kept: this.#keep() });
    if (this.#places.size > MOST_PLACES) this.#places.delete(this.#places.keys().next().value ?? "");
  }

  /** Return the place to which the address leads back; null if it has not been open before. @returns {Place | null} */
  arrive() {
    this.#keep = () => null;
    this.#entry = history.state?.entry ?? "";
    if (this.#entry) return this.#places.get(this.#entry) ?? null;
    this.#entries += 1;
    this.#entry = `${Date.now()}-${this.#entries}`;
    history.replaceState({ entry: this.#entry }, "");
    return null;
  }
}
