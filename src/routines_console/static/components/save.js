/**
 * Save what a page shows as a file, or copy it.
 */

import { button, h } from "../dom.js";

/** How long the browser may take to begin with saving. */
const KEPT_MILLISECONDS = 5000;

/**
 * Offer a text as a file to save.
 *
 * @param {string} name
 * @param {string} text
 * @param {string} type Its media type.
 */
export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const anchor = h("a", { href: url, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MILLISECONDS);
}

/**
 * Build the button that copies a JSON value; false where the browser cannot.
 *
 * @param {any} value
 * @param {string} name What it is, for people who do not see where the button is: "the outputs of greet".
 * @param {(text: string) => void} say
 */
export function copyButton(value, name, say) {
  async function copy() {
    try {
      await navigator.clipboard.writeText(textOf(value));
      say("Copied.");
    } catch {
      say("The browser did not allow it. Save it as a file instead.");
    }
  }

  // Browsers offer the clipboard only to pages that nobody on the way can change.
  return isSecureContext && button(labelled("Copy", name), copy, { class: "plain" });
}

/**
 * Build the button that saves a JSON value.
 *
 * @param {any} value
 * @param {string} name As for `copyButton`.
 * @param {string} file The name of the file, without a suffix.
 */
export function saveButton(value, name, file) {
  return button(labelled("Save", name), () => save(`${file}.json`, textOf(value), "application/json"), { class: "plain" });
}

/**
 * Return the text of a button, with what it is about for people who do not see where it is.
 *
 * @param {string} verb
 * @param {string} name
 */
export function labelled(verb, name) {
  return [verb, h("span", { class: "unseen" }, ` ${name}`)];
}

function textOf(value) {
  return `${JSON.stringify(value, null, 2)}\n`;
}
