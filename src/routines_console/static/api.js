/**
 * Call the HTTP API: send the key, limit concurrent requests, and wait as long as a 429 says.
 */

import { noteServerTime } from "./time.js";

const BASE = new URL("../api/v1/", document.baseURI);
const MAX_CONCURRENT = 6;
const MAX_ATTEMPTS = 6;
const LONGEST_WAIT_SECONDS = 30;

/**
 * How long a request may wait while the service asks to slow down.
 *
 * @typedef {object} Patience
 * @property {AbortSignal} signal Ends the waiting. A request that is under way is not cut off, since it may already have its effect.
 * @property {(seconds: number) => void} told Called with how long it waits.
 */

/** A request that failed: an error answer of the service, or no answer at all. */
export class Problem extends Error {
  /**
   * @param {number} status 0 if there was no answer.
   * @param {any} document The problem document (RFC 9457).
   * @param {string} [advice] What to do about it, where the status alone would suggest the wrong thing.
   */
  constructor(status, document, advice) {
    super(document.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.advice = advice;
    /** @type {string} */
    this.title = document.title ?? "Request failed";
    /** @type {{field: string, message: string}[]} */
    this.errors = document.errors ?? [];
    /** @type {string[]} */
    this.unknownKeys = document.unknown_keys ?? [];
  }
}

const NO_ANSWER = { title: "The service is not responding", detail: "Check that the API is running and that this machine can reach it, then try again." };

/** A client that sends one key. */
export class Api {
  #key;
  #running = 0;
  /** @type {(() => void)[]} */
  #waiting = [];

  /** @param {string} key */
  constructor(key) {
    this.#key = key;
    /** Called when the service rejects the key. */
    this.onRefused = () => {};
  }

  /**
   * GET a path and return the body of the answer.
   *
   * @param {(string | number)[]} path
   * @param {Record<string, any>} [query] Empty values are left out.
   * @param {AbortSignal} [signal]
   * @param {Patience} [patience]
   */
  async get(path, query = {}, signal, patience) {
    return (await this.#ask("GET", address(path, query), { signal, patience })).body;
  }

  /**
   * GET a page of a list. The cursor leads to the next page; it is null on the last one.
   *
   * @param {(string | number)[]} path
   * @param {Record<string, any>} [query]
   * @param {AbortSignal} [signal]
   * @returns {Promise<{items: any, cursor: string | null}>}
   */
  async page(path, query = {}, signal) {
    const answer = await this.#ask("GET", address(path, query), { signal });
    return { items: answer.body, cursor: nextCursor(answer.headers.get("link")) };
  }

  /**
   * POST what is to be listed, and return a page of the answer.
   *
   * @param {(string | number)[]} path
   * @param {any} body
   * @param {string | null} cursor Where the page begins; null for the first.
   * @returns {Promise<{found: any, cursor: string | null}>}
   */
  async pageOf(path, body, cursor) {
    const answer = await this.#ask("POST", address(path, { cursor }), { body });
    return { found: answer.body, cursor: nextCursor(answer.headers.get("link")) };
  }

  /**
   * GET a list as CSV: all of its pages as one text.
   *
   * @param {(string | number)[]} path
   * @param {Record<string, any>} query
   * @param {AbortSignal} [signal]
   */
  async csv(path, query, signal) {
    let text = "";
    let cursor = null;
    do {
      const answer = await this.#ask("GET", address(path, { ...query, format: "csv", cursor }), { signal, isText: true });
      // Each page begins with the names of the columns.
      text += text ? answer.body.slice(answer.body.indexOf("\n") + 1) : answer.body;
      cursor = nextCursor(answer.headers.get("link"));
    } while (cursor);
    return text;
  }

  /**
   * Send a request with another method than GET and return the body of the answer.
   *
   * @param {string} method
   * @param {(string | number)[]} path
   * @param {any} [body]
   * @param {string} [idempotencyKey] Makes it safe to send the request again.
   * @param {Patience} [patience]
   */
  async send(method, path, body, idempotencyKey, patience) {
    return (await this.#ask(method, address(path), { body, idempotencyKey, patience })).body;
  }

  async #ask(method, url, options) {
    await this.#enter(options.signal ?? options.patience?.signal);
    try {
      return await this.#retry(method, url, options);
    } finally {
      this.#leave();
    }
  }

  /** Send the request, and send it again while the service asks to slow down. */
  async #retry(method, url, options) {
    for (let attempt = 1; ; attempt += 1) {
      const answer = await this.#fetch(method, url, options);
      if (answer.status === 401) this.onRefused();
      // A 429 without Retry-After is about a limit of the collection, where waiting does not help.
      const wait = answer.headers.get("retry-after");
      if (answer.status !== 429 || wait === null || attempt === MAX_ATTEMPTS) return read(answer, options.isText);
      const seconds = Math.min(Number(wait) || attempt, LONGEST_WAIT_SECONDS);
      options.patience?.told(seconds);
      await pause(seconds * 1000, options.signal ?? options.patience?.signal);
    }
  }

  async #fetch(method, url, { body, idempotencyKey, signal }) {
    const headers = { Authorization: `Bearer ${this.#key}`, Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
    try {
      const answer = await fetch(url, {
        method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
      });
      noteServerTime(answer.headers.get("date"));
      return answer;
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem(0, NO_ANSWER);
    }
  }

  /** Wait until fewer than MAX_CONCURRENT requests are running. */
  async #enter(signal) {
    if (this.#running >= MAX_CONCURRENT) await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    this.#running += 1;
    if (signal?.aborted) {
      this.#leave();
      throw signal.reason;
    }
  }

  #leave() {
    this.#running -= 1;
    this.#waiting.shift()?.();
  }
}

/**
 * Issue idempotency keys for one form or button. The same body keeps its key until the service has answered, so sending
 * it again after a broken connection has no second effect.
 */
export class IdempotencyKeys {
  #body = "";
  #key = "";

  /** Return the key to send with this body. @param {any} body */
  keyFor(body) {
    const text = JSON.stringify(body ?? null);
    if (text !== this.#body) [this.#body, this.#key] = [text, newIdempotencyKey()];
    return this.#key;
  }

  /** Use a new key for the next request if this error was an answer of the service. @param {any} error */
  answered(error) {
    if (error instanceof Problem && error.status > 0) this.#body = "";
  }
}

function newIdempotencyKey() {
  return `console-${Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/**
 * Wait; rejects with the signal's reason as soon as the page is left.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

async function read(answer, isText) {
  const text = await answer.text();
  if (isText && answer.ok) return { body: text, headers: answer.headers };
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    throw new Problem(answer.status, { detail: "The answer was not JSON, so it did not come from the API." });
  }
  if (!answer.ok) throw new Problem(answer.status, body ?? {});
  return { body, headers: answer.headers };
}

function address(path, query = {}) {
  const url = new URL(path.map((segment) => encodeURIComponent(segment)).join("/"), BASE);
  for (const [name, given] of Object.entries(query)) {
    if (given !== null && given !== undefined && given !== "") url.searchParams.set(name, given);
  }
  return url;
}

/** Take only the cursor from a Link header: its path may lack the prefix that a proxy adds. */
function nextCursor(header) {
  const target = header && /^<([^>]+)>; rel="next"$/.exec(header);
  return target ? new URL(target[1], BASE).searchParams.get("cursor") : null;
}
