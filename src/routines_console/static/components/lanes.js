/**
 * Show a routine as a lane along the time: runs as bars, skipped slots hollow, slots to come as outlines. Colour and shape both tell
 * the outcome, and words say it.
 */

import { address, h, link } from "../dom.js";
import { now } from "../time.js";
import { KINDS } from "../words.js";
import { markWords, pauseWords, STATUSES } from "./lane-words.js";

/** What stands for several in one mark until it is shown larger. Skipped slots in a row have one reason, and stay together. */
const LARGER = [...STATUSES, "coming", "due"];
/** What the legend explains. */
const EXPLAINED = ["completed", "running", "failed", "missed", "failed_to_start", "overlap", "calendar", "coming", "due"];

/**
 * Build the lane of a routine.
 *
 * @param {any} found The routine with its marks.
 * @param {import("../stretch.js").Stretch} stretch
 * @param {(time: number) => void} enlarge Shows what is around this time larger.
 */
export function lane(found, stretch, enlarge) {
  const name = link(["routines", found.task, found.routine], { class: "name", tabindex: "-1", "data-at": stretch.begin }, found.routine);
  return h("li", { class: "lane", "data-routine": found.routine_id },
    h("div", { class: "who" }, name, found.paused_at && h("span", { class: "quiet", title: pauseWords(found) }, "paused")),
    h("div", { class: "marks" }, found.paused_at && pause(found, stretch), found.marks.map((mark) => bar(mark, found, stretch, enlarge))));
}

/** Explain the marks. */
export function legend() {
  return h("ul", { class: "legend", "aria-label": "What the marks mean" }, EXPLAINED.map((kind) =>
    h("li", {}, h("i", { class: `lane-mark ${kind}`, "aria-hidden": "true" }), KINDS[kind])));
}

/** Draw a mark, which leads to its run, or to why its slot did not run. One that stands for several shows them larger. */
function bar(mark, found, stretch, enlarge) {
  const begin = Date.parse(mark.at);
  const end = mark.until ? Date.parse(mark.until) : now();
  const words = `${found.routine}: ${markWords(mark)}`;
  const isSeveral = mark.count > 1 && LARGER.includes(mark.kind) && !stretch.isShortest;
  const from = Math.max(0, stretch.place(begin));
  const until = Math.min(1, Math.max(from, stretch.place(end)));
  return h("a", {
    class: `lane-mark ${mark.kind}`, tabindex: "-1", "aria-label": words, title: words, href: target(mark, found), "data-at": begin,
    css: { "--from": percent(from), "--length": percent(until - from) },
    onclick: isSeveral ? (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      enlarge((begin + end) / 2);
    } : null,
  });
}

/** Return the address that a mark leads to. */
function target({ trajectory_id: run, scheduled_for: slot }, { task, routine }) {
  return run ? address(["runs", task, run]) : address(["routines", task, routine], { slot: slot ?? "" });
}

/** Draw how long it has been paused, and will be. */
function pause({ paused_at: at, paused_until: until }, stretch) {
  const from = Math.max(0, stretch.place(Date.parse(at)));
  const to = Math.min(1, until ? stretch.place(Date.parse(until)) : 1);
  return to > from && h("i", { class: "pause", "aria-hidden": "true", css: { "--from": percent(from), "--length": percent(to - from) } });
}

function percent(part) {
  return `${(part * 100).toFixed(2)}%`;
}
