/**
 * Put into words what a routine does when its runs fail: `retry`, `pause_after_failures` and `then`.
 */

import { span } from "./time.js";
import { count, listed } from "./words.js";

/** The most slots that are skipped before a try. */
const MOST_SKIPPED = 64;

/**
 * Say how a failed run is retried, in sentences; null if it is not.
 *
 * @param {any} retry
 * @returns {string[] | null}
 */
export function retryWords(retry) {
  if (!retry) return null;
  return [
    `Up to ${count(retry.max_attempts - 1, "retry", "retries")}, ${delayWords(retry.backoff, retry.max_attempts - 1)}`,
    ...retry.on === "transient" ? ["Only if the cause may go away by itself, such as a timeout"] : [],
    retry.until === "next_slot" ? "No later than the next slot" : `No later than ${span(retry.until)} after the first try`,
  ];
}

function delayWords(backoff, retries) {
  if (!Array.isArray(backoff)) {
    const { initial, multiplier, max } = backoff;
    return multiplier === 1 ? `each after ${span(Math.min(initial, max))}`
      : `the first after ${span(Math.min(initial, max))}, each further one after ${multiplier} times as long, at most ${span(max)}`;
  }
  if (backoff.length === 1) return `each after ${span(backoff[0])}`;
  return `after ${listed(backoff.slice(0, retries).map(span))}${retries > backoff.length ? ", each further one after the same time as the last" : ""}`;
}

/**
 * Say what a routine does after so many failed slots in a row; null if it goes on.
 *
 * @param {any} routine
 */
export function stopWords({ pause_after_failures: most, then }) {
  if (!most) return null;
  const after = `After ${count(most, "failed slot")}${most === 1 ? "" : " in a row"}`;
  return then === "backoff"
    ? `${after} it skips 1 slot and tries the next. Each time that fails, it skips twice as many, at most ${MOST_SKIPPED}`
    : `${after} it is paused until someone resumes it`;
}
