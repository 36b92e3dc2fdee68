/**
 * Show the error of a run or a step: a long one by its beginning, until the user asks for the rest.
 */

import { h } from "../dom.js";

const MOST_LINES = 3;
const MOST_CHARACTERS = 280;

/**
 * Build it.
 *
 * @param {string} text
 * @param {string} [kind] The class: `cause` beside something else, `notice bad` on its own.
 */
export function cause(text, kind = "cause") {
  if (!isLong(text)) return h("p", { class: kind }, text);
  return h("details", { class: `${kind} long` },
    h("summary", {}, h("span", { class: "beginning" }, `${beginning(text)}… `),
      h("span", { class: "more" }, "Show all"), h("span", { class: "less" }, "Show less")),
    h("div", {}, text));
}

/** Return whether only the beginning of a text is shown at first. @param {string} text */
export function isLong(text) {
  return beginning(text) !== text.trimEnd();
}

function beginning(text) {
  return text.trimEnd().split("\n").slice(0, MOST_LINES).join("\n").slice(0, MOST_CHARACTERS);
}
