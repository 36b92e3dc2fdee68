/**
 * Show where a page is going to be while it is loading and there is nothing else to show.
 */

import { h } from "../dom.js";

const LINES = 6;

/** Build it. Readers of the screen are told in words. */
export function skeleton() {
  return h("div", { class: "skeleton" },
    h("p", { class: "unseen", role: "status" }, "Loading"),
    h("div", { "aria-hidden": "true" }, h("i", { class: "heading" }), Array.from({ length: LINES }, () => h("i"))));
}
