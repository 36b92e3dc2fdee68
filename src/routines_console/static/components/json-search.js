/**
 * Search a JSON value: show what matches at its place in the value, and mark it.
 */

import { h } from "../dom.js";
import { json, OPEN_DEPTH, textOf } from "./json-tree.js";

/** More matches than this are not shown. */
export const MOST = 1000;
/** How much of a text is shown before and after a match, in characters. */
const AROUND = 80;
/** The characters that mean something in a regular expression. */
const SPECIAL = /[\\^$.*+?()[\]{}|/]/g;

/**
 * Build the part of a value that has what was typed, in the names of members and in values, whatever the case.
 *
 * @param {any} value
 * @param {string} typed
 * @returns {{element: Node, marks: HTMLElement[]}} `marks` are the matches as they are shown, in order.
 */
export function matching(value, typed) {
  const pattern = new RegExp(typed.replace(SPECIAL, "\\$&"), "giu");
  /** @type {HTMLElement[]} */
  const marks = [];

  /** Return a text with its matches marked and what is far from them left out; null if it has none. */
  function marked(text) {
    const parts = [];
    let end = 0;
    for (const { 0: found, index } of text.matchAll(pattern)) {
      if (marks.length === MOST) break;
      const mark = h("mark", {}, found);
      marks.push(mark);
      parts.push(between(text.slice(end, index)), mark);
      end = index + found.length;
    }
    return parts.length ? [...parts, between(text.slice(end))] : null;
  }

  /** Return what matches of a value; null if nothing does. */
  function part(inner) {
    if (marks.length === MOST) return null;
    if (inner === null || typeof inner !== "object") {
      const shown = marked(textOf(inner));
      return shown && h("code", { class: "json text" }, shown);
    }
    const isArray = Array.isArray(inner);
    const members = Object.entries(inner).map(([key, each]) => member(key, each, isArray)).filter((each) => each !== null);
    return members.length ? h("ul", {}, members) : null;
  }

  /** The numbers of an array's items do not count as their names. */
  function member(key, inner, isItem) {
    const name = isItem ? null : marked(key);
    const shown = part(inner);
    if (!name && !shown) return null;
    return h("li", {}, h("span", { class: "key" }, name ?? key, isItem ? "." : ":"), " ", shown ?? json(inner, OPEN_DEPTH + 1));
  }

  const element = h("div", { class: "json" }, part(value));
  return { element, marks };
}

/** Shorten what is between two matches. */
function between(text) {
  return text.length <= 3 * AROUND ? text : `${text.slice(0, AROUND)} … ${text.slice(-AROUND)}`;
}
