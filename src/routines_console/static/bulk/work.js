/**
 * Do something with many routines: a few requests at a time, as fast as the service allows, with a result for each. It goes on while
 * other pages of the console are open, can be stopped, and what was not done can be tried again.
 *
 * @typedef {object} Job A request for one routine.
 * @property {any} routine
 * @property {string} [run] The run that it is about: "Run 12".
 * @property {(patience: import("../api.js").Patience) => Promise<Result | null>} check Looks again before anything is changed. Returns a result if there is
 *   nothing to do any more.
 * @property {(patience: import("../api.js").Patience) => Promise<Result>} send
 *
 * @typedef {{text: string, run?: number | null}} Result What became of it, and the run that this leads to.
 *
 * @typedef {object} Item A job and how far it has come.
 * @property {Job} job
 * @property {"waiting" | "working" | "done" | "left" | "refused" | "unknown"} state `left`: there was nothing to do any more. `unknown`: it
 *   was sent, and no answer came.
 * @property {Result} result
 */

import { Problem } from "../api.js";

/** Less than the console may send at once, so that its pages go on too. */
const AT_ONCE = 4;
/** Answers that say nothing about one routine: the others would get them as well. */
const OUTAGES = [0, 401, 502, 503, 504];
const NOTHING = { text: "" };

export class Work {
  /**
   * @param {{doing: string, done: string}} words What it does, and what was done: "Pausing", "paused".
   * @param {Job[]} jobs
   */
  constructor(words, jobs) {
    this.words = words;
    /** @type {Item[]} */
    this.items = jobs.map((job) => ({ job, state: "waiting", result: NOTHING }));
    this.isRunning = false;
    /** Why it stands still or has stopped, in a sentence; empty if it does not. */
    this.note = "";
    /** Called after each step. */
    this.changed = () => {};
    this.halt = new AbortController();
  }

  /** Whether it is going to begin more: it runs, and nobody has stopped it. */
  get goesOn() {
    return this.isRunning && !this.halt.signal.aborted;
  }

  /** Return the items in any of these states. @param {...Item["state"]} states */
  in(...states) {
    return this.items.filter(({ state }) => states.includes(state));
  }

  /**
   * Do what has not been done; call it again to go on, or to try again.
   *
   * @param {...Item["state"]} states Which of the items.
   */
  async start(...states) {
    if (this.isRunning) return;
    const queue = this.in(...states);
    for (const item of queue) Object.assign(item, { state: "waiting", result: NOTHING });
    this.halt = new AbortController();
    this.isRunning = true;
    this.note = "";
    this.changed();
    await Promise.all(Array.from({ length: AT_ONCE }, () => this.#follow(queue)));
    this.isRunning = false;
    this.changed();
  }

  /** Begin nothing more. What was sent already is waited for. @param {string} [reason] */
  stop(reason = "It was stopped by hand.") {
    if (!this.goesOn) return;
    this.note = reason;
    this.halt.abort();
  }

  async #follow(queue) {
    while (queue.length && !this.halt.signal.aborted) {
      await this.#work(queue.shift());
      this.changed();
    }
  }

  /** @param {Item} item */
  async #work(item) {
    const { signal } = this.halt;
    const patience = { signal, told: (seconds) => this.#wait(seconds) };
    let isSent = false;
    item.state = "working";
    try {
      const found = await item.job.check(patience);
      isSent = !found && !signal.aborted;
      if (found) Object.assign(item, { state: "left", result: found });
      else if (isSent) Object.assign(item, { state: "done", result: await item.job.send(patience) });
      else item.state = "waiting";
      if (!signal.aborted) this.note = "";
    } catch (error) {
      Object.assign(item, this.#failed(error, isSent));
    }
  }

  /** Return what a failed request says of its item; stop if it says the same of all others. */
  #failed(error, isSent) {
    const isAnswer = error instanceof Problem;
    // Stopped while it waited until it might be sent.
    if (!isAnswer && this.halt.signal.aborted) return { state: "waiting", result: NOTHING };
    if (!isAnswer || !OUTAGES.includes(error.status)) return { state: "refused", result: { text: error.message } };
    this.stop(`It has stopped, since the service does not answer. ${error.message}`);
    if (!isSent || error.status === 401) return { state: "waiting", result: NOTHING };
    const text = error.status ? error.message : "No answer came.";
    return { state: "unknown", result: { text: `${text} It may have been done or not.` } };
  }

  #wait(seconds) {
    if (this.halt.signal.aborted) return;
    this.note = `The service asks to slow down: it goes on in ${Math.ceil(seconds)} s.`;
    this.changed();
  }
}
