/**
 * Remember which steps of a run are open, and the views of their values, so that they stay as the user left them while it goes on.
 */

/** The steps that are open. One that has failed opens by itself, once: the user may close it. */
export class OpenSteps {
  /** Their names. @type {Set<string>} */
  names = new Set();
  /** The views of their values, which are built once. @type {Map<string, Node>} */
  views = new Map();
  #failed = new Set();

  /** Open what has failed since. @param {any} run */
  add({ steps }) {
    for (const [name, { status }] of Object.entries(steps)) {
      if (status !== "failed" || this.#failed.has(name)) continue;
      this.#failed.add(name);
      this.names.add(name);
    }
  }
}
