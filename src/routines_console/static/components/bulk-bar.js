/**
 * Say how many routines are selected, and offer what can be done with all of them. The bar appears with the first of them, at the
 * lower edge of the window, so that no row moves from under the pointer.
 */

import { button, fill, h } from "../dom.js";
import { count } from "../words.js";

/**
 * @typedef {object} Found What the list shows.
 * @property {number[]} shown The routines on the page.
 * @property {number[]} fitting Those that fit the filter.
 * @property {boolean} isWhole Whether it is known of all routines whether they fit.
 */

/**
 * Build the bar, and the box above the list that selects the routines shown.
 *
 * @param {import("../selection.js").Selection} selection
 * @param {() => void} changed Called when the user has selected or unselected routines here.
 * @param {[string, string, () => unknown][]} actions The id, the text and the work of each button.
 */
export function bulkBar(selection, changed, actions) {
  /** @type {Found} */
  let found = { shown: [], fitting: [], isWhole: false };
  const all = h("input", { type: "checkbox", id: "pick-shown", onchange: () => set(found.shown, all.checked) });
  const label = h("span", {});
  const head = h("div", { class: "pick-shown" }, h("label", {}, all, label));
  const number = h("p", { class: "selected" });
  const buttons = actions.map(([id, text, act]) => button(text, act, { id: `bulk-${id}` }));
  const bar = h("section", { class: "bulk-bar", "aria-label": "The selected routines", tabindex: "-1", id: "bulk-bar", hidden: true },
    number, h("div", { class: "actions" }, buttons));
  const told = h("p", { class: "unseen", role: "status" });

  function set(ids, isSelected) {
    selection.set(ids, isSelected);
    changed();
  }

  /** Move the focus here; to the box above the list, if nothing is selected. */
  function focus() {
    (bar.hidden ? all : bar).focus();
  }

  function draw() {
    const chosen = selection.ids.size;
    const shown = found.shown.filter((id) => selection.ids.has(id)).length;
    all.checked = shown > 0 && shown === found.shown.length;
    all.indeterminate = shown > 0 && !all.checked;
    fill(label, `Select the ${found.shown.length.toLocaleString("en")} shown`);
    head.hidden = found.shown.length === 0;
    const fitting = new Set(found.fitting);
    const others = [...selection.ids].filter((id) => !fitting.has(id)).length;
    const isMore = found.isWhole && chosen - others < fitting.size;
    const hadFocus = bar.contains(document.activeElement);
    bar.hidden = chosen === 0;
    fill(number, h("strong", {}, `${chosen.toLocaleString("en")} selected`), others > 0 && h("span", { class: "quiet" }, `, ${others.toLocaleString("en")} not in this list`),
      isMore && button(`Select all ${fitting.size.toLocaleString("en")} that fit`, () => set(found.fitting, true), { class: "plain", id: "pick-fitting" }),
      button("Clear", () => { selection.clear(); changed(); }, { class: "plain", id: "pick-none" }));
    // The button that was pressed may have gone.
    if (hadFocus && (bar.hidden || !bar.contains(document.activeElement))) focus();
    const text = chosen ? `${count(chosen, "routine is", "routines are")} selected.` : "";
    if (told.textContent !== text) fill(told, text);
  }

  return {
    head,
    element: h("div", { class: "bulk" }, bar, told),
    /** Show what is selected of what the list shows now. @param {Found} [now] What it showed before, if it is left out. */
    draw(now = found) {
      found = now;
      draw();
    },
    focus,
    /** Offer the actions, or not while one is going on. @param {boolean} isBusy */
    busy(isBusy) {
      for (const each of buttons) each.disabled = isBusy;
    },
  };
}
