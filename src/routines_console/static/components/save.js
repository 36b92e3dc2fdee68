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
 * Build the buttons that copy a JSON value and save it.
 *
 * @param {any} value
 * @param {string} name What it is, for people who do not see where the buttons are: "the outputs of greet".
 * @param {string} file Its name without a suffix.
 * @param {(text: string) => void} say
 */
export function jsonButtons(value, name, file, say) {
  const text = () => `${JSON.stringify(value, null, 2)}\n`;
  const about = () => h("span", { class: "unseen" }, ` ${name}`);

  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      say("Copied.");
    } catch {
      say("The browser did not allow it. Save it as a file instead.");
    }
  }

  return h("span", { class: "json-buttons" },
    // Browsers offer the clipboard only to pages that nobody on the way can change.
    isSecureContext && button(["Copy", about()], copy, { class: "plain" }),
    button(["Save", about()], () => save(`${file}.json`, text(), "application/json"), { class: "plain" }));
}
