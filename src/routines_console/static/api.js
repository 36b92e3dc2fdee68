/**
 * The HTTP contract: requests with the key, a few at a time, with patience where the service asks for it.
 */

import { noteServerTime } from "./time.js";

const BASE = new URL("../api/v1/", document.baseURI);
const AT_ONCE = 6;
const TRIES = 6;
const LONGEST_WAIT_SECONDS = 30;

/** What the service, or the way to it, had against a request. */
export class Problem extends Error {
  /**
   * @param {number} status 0: there was no answer.
   * @param {any} document The problem document.
   */
  constructor(status, document) {
    super(document.detail ?? `The service answered ${status}.`);
    this.status = status;
    /** @type {string} */
    this.title = document.title ?? "It did not work";
    /** @type {{field: string, message: string}[]} */
    this.errors = document.errors ?? [];
    /** @type {string[]} */
    this.unknownKeys = document.unknown_keys ?? [];
  }
}

const NO_ANSWER = {
  title: "The service does not answer",
  detail: "Check that the API runs and that this machine reaches it; then try again.",
};

/** A client with one key. */
export class Api {
  #key;
  #running = 0;
  /** @type {(() => void)[]} */
  #waiting = [];

  /** @param {string} key */
  constructor(key) {
    this.#key = key;
    /** Called where the key does not open any more. */
    this.onRefused = () => {};
  }

  /**
   * What a path answers.
   *
   * @param {(string | number)[]} path
   * @param {Record<string, any>} [query] What is empty is left out.
   * @param {AbortSignal} [signal]
   */
  async get(path, query = {}, signal) {
    return (await this.#ask("GET", address(path, query), { signal })).body;
  }

  /**
   * A page of a list, and the cursor of the next one: null where there is none.
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
   * Change something.
   *
   * @param {string} method
   * @param {(string | number)[]} path
   * @param {any} [body]
   * @param {string} [idempotencyKey] So that a repetition changes nothing more.
   */
  async send(method, path, body, idempotencyKey) {
    return (await this.#ask(method, address(path), { body, idempotencyKey })).body;
  }

  async #ask(method, url, options) {
    await this.#enter(options.signal);
    try {
      return await this.#patiently(method, url, options);
    } finally {
      this.#leave();
    }
  }

  async #patiently(method, url, options) {
    for (let attempt = 1; ; attempt += 1) {
      const answer = await this.#once(method, url, options);
      if (answer.status === 401) this.onRefused();
      if (answer.status !== 429 || attempt === TRIES) return read(answer);
      const seconds = Number(answer.headers.get("retry-after")) || attempt;
      await pause(Math.min(seconds, LONGEST_WAIT_SECONDS) * 1000, options.signal);
    }
  }

  async #once(method, url, { body, idempotencyKey, signal }) {
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

  async #enter(signal) {
    if (this.#running >= AT_ONCE) await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
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
 * Keys under which a request is done once: the same body gets the same key until the service has answered, so that what
 * is sent again after a broken connection does nothing more.
 */
export class Once {
  #body = "";
  #key = "";

  /** @param {any} body */
  key(body) {
    const text = JSON.stringify(body ?? null);
    if (text !== this.#body) [this.#body, this.#key] = [text, newIdempotencyKey()];
    return this.#key;
  }

  /** An answer came: the next request is another one. @param {any} error */
  answered(error) {
    if (error instanceof Problem && error.status > 0) this.#body = "";
  }
}

function newIdempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `console-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/**
 * Wait; ends early, with the signal's reason, where the page is left.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

async function read(answer) {
  const text = await answer.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    throw new Problem(answer.status, { detail: "The answer was no JSON: something else than the API answered." });
  }
  if (!answer.ok) throw new Problem(answer.status, body ?? {});
  return { body, headers: answer.headers };
}

function address(path, query = {}) {
  const url = new URL(path.map((part) => encodeURIComponent(part)).join("/"), BASE);
  for (const [name, given] of Object.entries(query)) {
    if (given !== null && given !== undefined && given !== "") url.searchParams.set(name, given);
  }
  return url;
}

/** The cursor of a Link header; its path is the service's own, and may lack what a proxy puts before it. */
function nextCursor(header) {
  const target = header && /^<([^>]+)>; rel="next"$/.exec(header);
  return target ? new URL(target[1], BASE).searchParams.get("cursor") : null;
}
