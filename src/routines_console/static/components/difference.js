/**
 * Show which fields a change has changed: each with its value before and after.
 */

import { h } from "../dom.js";
import { count } from "../words.js";
import { json, OPEN_DEPTH } from "./json-tree.js";

/** More fields than this are shown only if the user asks for them. */
const MANY = 6;
/** A value with more characters of JSON than this is closed at first. */
const LARGE = 400;

/**
 * Build the list.
 *
 * @param {import("../differences.js").Difference[]} found
 */
export function difference(found) {
  const list = h("ul", { class: "difference" }, found.map(([path, before, after]) => h("li", {},
    h("code", { class: "wrap" }, path), ": ",
    value("del", before), h("span", { class: "quiet" }, " → ", h("span", { class: "unseen" }, "is now ")), value("ins", after))));
  return found.length > MANY ? h("details", {}, h("summary", {}, `${count(found.length, "field")} changed`), list) : list;
}

function value(tag, given) {
  if (given === undefined) return h("span", { class: "quiet" }, "not set");
  return h(tag, {}, json(given, JSON.stringify(given).length > LARGE ? OPEN_DEPTH + 1 : OPEN_DEPTH));
}
