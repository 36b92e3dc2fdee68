/**
 * Say something of several things, which are named on demand.
 */

import { h } from "../dom.js";

const MOST_NAMES = 200;

/**
 * Build the sentence.
 *
 * @param {string} text
 * @param {any[]} names What it is about: texts, or elements.
 */
export function someOf(text, names) {
  const rest = names.length - MOST_NAMES;
  return h("details", { class: "some" }, h("summary", {}, text),
    h("ul", {}, names.slice(0, MOST_NAMES).map((name) => h("li", {}, name))),
    rest > 0 && h("p", { class: "quiet" }, `and ${rest.toLocaleString("en")} more`));
}
