/**
 * Let the tabs of the console hand keys to one another. A new tab asks, and those that are open answer: so a link that is opened in another
 * tab works, and no key is in an address or outlives the last tab. Only pages of the same origin can listen.
 *
 * @typedef {[string, string][]} Keys The collections and their keys.
 */

const WAIT_MILLISECONDS = 150;
const channel = new BroadcastChannel("routines.keys");
let hasAsked = false;

/**
 * Answer other tabs.
 *
 * @param {() => Keys} held Returns the keys of this tab.
 * @param {(collection: string | null) => void} forgotten Called when another tab has signed out of a collection; null for all.
 * @param {(keys: Keys) => void} received Called with keys that this tab has asked for, also if they come late: a busy tab takes its time.
 */
export function answerTabs(held, forgotten, received) {
  channel.addEventListener("message", ({ data }) => {
    if (data.kind === "ask" && held().length) channel.postMessage({ kind: "keys", keys: held() });
    if (data.kind === "keys" && hasAsked) received(data.keys);
    if (data.kind === "forget") forgotten(data.collection);
  });
}

/**
 * Ask the other tabs for their keys, and give them a moment to answer.
 *
 * @param {() => boolean} isEnough Returns whether to wait no longer; called after each answer was received.
 * @returns {Promise<void>}
 */
export function askTabs(isEnough) {
  return new Promise((resolve) => {
    const timer = setTimeout(end, WAIT_MILLISECONDS);

    function heard({ data }) {
      if (data.kind === "keys" && isEnough()) end();
    }

    function end() {
      clearTimeout(timer);
      channel.removeEventListener("message", heard);
      resolve();
    }

    channel.addEventListener("message", heard);
    hasAsked = true;
    channel.postMessage({ kind: "ask" });
  });
}

/** Have the other tabs sign out of a collection as well. @param {string | null} collection Null for all. */
export function forgetInTabs(collection) {
  channel.postMessage({ kind: "forget", collection });
}
