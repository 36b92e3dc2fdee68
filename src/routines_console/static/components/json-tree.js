/**
 * Show a JSON value that can be expanded. Long texts are cut until the user asks for the rest; nothing becomes markup.
 */

import { button, fill, giveWay, h } from "../dom.js";
import { count } from "../words.js";

const LONG_TEXT = 600;
const MANY = 100;
/** Values that are nested deeper are closed at first. */
export const OPEN_DEPTH = 1;

/**
 * Build the value.
 *
 * @param {any} value
 * @param {number} [depth]
 * @returns {HTMLElement}
 */
export function json(value, depth = 0) {
  if (value === null || typeof value !== "object") return scalar(value);
  const isArray = Array.isArray(value);
  const entries = Object.entries(value);
  if (!entries.length) return h("code", { class: "json" }, isArray ? "[ ]" : "{ }");
  if (depth === 0) return h("div", { class: "json" }, members(entries, isArray, depth));
  const summary = isArray ? count(entries.length, "item") : entries.map(([key]) => key).slice(0, 4).join(", ") + (entries.length > 4 ? ", …" : "");
  const body = h("div", { class: "inside" });
  const details = h("details", { open: depth <= OPEN_DEPTH, ontoggle: unfold },
    h("summary", {}, h("span", { class: "quiet" }, isArray ? `[ ${summary} ]` : `{ ${summary} }`)), body);

  /** Build the members when the value is first expanded. */
  function unfold() {
    if (details.open && !body.children.length) fill(body, members(entries, isArray, depth));
  }
  if (details.open) unfold();
  return details;
}

function members(entries, isArray, depth) {
  const list = h("ul", {}, entries.slice(0, MANY).map(member));
  const rest = entries.slice(MANY);
  if (rest.length) {
    const more = h("li", {}, button(`Show ${count(rest.length, "more", "more")}`, () => {
      const added = rest.map(member);
      more.after(...added);
      giveWay(more, added[0]);
    }, { class: "plain" }));
    list.append(more);
  }
  return list;

  function member([key, inner]) {
    return h("li", {}, h("span", { class: "key" }, isArray ? `${key}.` : `${key}:`), " ", json(inner, depth + 1));
  }
}

/** Return the text that is shown for a value that has no members. @param {any} value */
export function textOf(value) {
  return typeof value === "string" && !value.trim() ? JSON.stringify(value) : String(value);
}

function scalar(value) {
  const text = textOf(value);
  if (typeof value !== "string") return h("code", { class: `json ${value === null ? "null" : typeof value}` }, text);
  if (text.length <= LONG_TEXT) return h("code", { class: "json text" }, text);
  const shown = h("code", { class: "json text" }, `${text.slice(0, LONG_TEXT)}…`);
  const more = button(`Show all ${count(text.length, "character")}`, () => {
    fill(shown, text);
    giveWay(more, shown);
  }, { class: "plain" });
  return h("span", {}, shown, " ", more);
}
