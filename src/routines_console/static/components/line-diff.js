/**
 * Show how a text has changed, line by line, with a few lines around each change.
 */

import { h } from "../dom.js";
import { compareLines } from "../lines.js";
import { count } from "../words.js";

const AROUND = 3;
const SIGNS = { same: "", removed: "−", added: "+" };
const TAGS = { same: "span", removed: "del", added: "ins" };

/**
 * Build it.
 *
 * @param {string} before
 * @param {string} after
 */
export function lineDiff(before, after) {
  const lines = compareLines(before, after);
  const changed = lines.flatMap(({ kind }, index) => kind === "same" ? [] : [index]);
  if (!changed.length) return h("p", { class: "quiet" }, "They are the same.");
  const number = (kind) => lines.filter((line) => line.kind === kind).length;
  const isNear = lines.map(() => false);
  for (const index of changed) isNear.fill(true, Math.max(0, index - AROUND), index + AROUND + 1);
  const rows = lines.flatMap((line, index) => isNear[index] ? [row(line)] : isNear[index - 1] || index === 0 ? [gap(lines, isNear, index)] : []);
  return h("div", {},
    h("p", { class: "hint" }, `${count(number("removed"), "line")} removed, ${count(number("added"), "line")} added.`),
    h("div", { class: "line-diff", tabindex: "0", role: "region", "aria-label": "Lines that differ" }, h("ol", {}, rows)));
}

function row({ kind, text, before, after }) {
  return h("li", { class: kind },
    h("span", { class: "at", "aria-hidden": "true" }, before), h("span", { class: "at", "aria-hidden": "true" }, after), h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[kind]),
    h(TAGS[kind], {}, kind !== "same" && h("span", { class: "unseen" }, `${kind}: `), text || " "));
}

/** Stand for the lines from an index on that are far from any change. */
function gap(lines, isNear, index) {
  const next = isNear.indexOf(true, index);
  return h("li", { class: "gap quiet" }, `${count((next < 0 ? lines.length : next) - index, "line")} as before`);
}
