/**
 * Show the runs that the steps of a run have started: how they ended, and a cell for each that leads to it.
 */

import { fill, h, link } from "../dom.js";
import { KINDS } from "../words.js";
import { roving } from "./roving.js";
import { badge } from "./strip.js";

/** The service names no more children than this. */
const MOST = 1000;
const ORDER = ["failed", "running", "pending", "cancelled", "archived", "completed"];

/** Build the place for them; `draw` fills it whenever they have changed. */
export function children() {
  const counts = h("p", { class: "legend" });
  const grid = h("ul", { class: "cells", "aria-label": "Children" });
  const more = h("p", { class: "hint" });
  const focus = roving(grid, "a");
  let drawn = "";

  return {
    element: h("div", {}, counts, grid, more),
    /** Draw them, unless they are as they were. @param {any[]} found */
    draw(found) {
      const fresh = JSON.stringify(found);
      if (fresh === drawn) return;
      drawn = fresh;
      fill(counts, tally(found));
      fill(grid, found.map((each, index) => h("li", {}, cell(each, index))));
      fill(more, found.length >= MOST && `These are the first ${MOST.toLocaleString("en")}.`);
      const focused = document.activeElement;
      focus.settle(focused && grid.contains(focused) ? focused : grid.querySelector("a.failed"));
    },
  };
}

/** Count them by status, those first that need a look. */
function tally(found) {
  const numbers = ORDER.map((status) => [status, found.filter((each) => each.status === status).length]);
  return numbers.filter(([, number]) => number).map(([status, number]) =>
    badge(status, `${number.toLocaleString("en")} ${(KINDS[status] ?? status).toLowerCase()}`));
}

function cell({ trajectory_id: id, name, status }, index) {
  const words = `${id} of ${name.split("/")[1]}: ${KINDS[status] ?? status}`;
  return link(["runs", name.split("/")[1], id], { id: `child-${id}`, class: `cell ${status}`, title: `Run ${words}` },
    h("i", { "aria-hidden": "true" }), h("span", { class: "unseen" }, `${index + 1}, run ${words}`));
}
