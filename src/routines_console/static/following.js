/**
 * Follow a collection, a routine or a run: one small request now and then says what has changed since the one before.
 */

/** What has changed, answer by answer. Begin it before reading what is followed, so that nothing falls between. */
export class Feed {
  #api;
  #path;
  #query;
  #signal;
  /** @type {string | null} */
  #cursor = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {(string | number)[]} path
   * @param {Record<string, any>} query
   * @param {AbortSignal} signal
   */
  constructor(api, path, query, signal) {
    [this.#api, this.#path, this.#query, this.#signal] = [api, path, query, signal];
  }

  /** Pass over what has changed so far. */
  begin() {
    return this.next(() => {});
  }

  /**
   * Ask what has changed since the answer before. What could not be taken over is in the next answer again.
   *
   * @param {(changes: any) => any} take Takes it over. `as_of` says up to when these changes are known.
   */
  async next(take) {
    const answer = await this.#api.get(this.#path, { ...this.#query, since: this.#cursor }, this.#signal);
    await take(answer);
    this.#cursor = answer.cursor;
  }
}

/**
 * Follow the routines of the collection, or one of them. An answer has `routines`, as they are now, the ids of those `deleted`, and
 * whether it `is_whole`: otherwise everything has to be read again.
 *
 * @param {import("./session.js").Session} session
 * @param {AbortSignal} signal
 * @param {{routine?: number}} [query]
 */
export function followRoutines({ api, collection }, signal, query = {}) {
  return new Feed(api, ["db", "changes", collection], query, signal);
}

/**
 * Follow a run. An answer says whether it `has_changed`.
 *
 * @param {import("./session.js").Session} session
 * @param {string} task
 * @param {string | number} id
 * @param {AbortSignal} signal
 */
export function followRun({ api, collection }, task, id, signal) {
  return new Feed(api, ["db", "trajectory", collection, task, id, "changes"], {}, signal);
}
