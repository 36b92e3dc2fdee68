/**
 * Make the rows of a list selectable: by their boxes, by ranges with Shift, and by the keyboard from anywhere in a row.
 */

import { h } from "../dom.js";
import { hasSingleKeys } from "../session.js";

/** The keys that go on to another row and select it, with Shift. */
const STEPS = { ArrowDown: 1, ArrowUp: -1, J: 1, K: -1 };

/**
 * Watch the list; its rows may be replaced later.
 *
 * @param {HTMLElement} list
 * @param {import("../selection.js").Selection} selection
 * @param {() => void} changed Called when the user has selected or unselected rows.
 */
export function picks(list, selection, changed) {
  /** Whether Shift was held on the label, which passes the click on to its box. */
  let isRange = false;
  /** @returns {HTMLInputElement[]} */
  const boxes = () => [...list.querySelectorAll(".pick input")];
  const idOf = (box) => Number(box.dataset.routine);

  /** Show in the boxes what is selected. */
  function settle() {
    for (const box of boxes()) box.checked = selection.ids.has(idOf(box));
  }

  function set(chosen, isSelected) {
    selection.set(chosen.map(idOf), isSelected);
    settle();
    changed();
  }

  /** Do with all rows from the last one to this what was done with this. */
  function range(box) {
    const all = boxes();
    const [from, to] = [all.findIndex((each) => idOf(each) === selection.anchor), all.indexOf(box)];
    if (from < 0) return set([box], box.checked);
    const between = all.slice(Math.min(from, to), Math.max(from, to) + 1);
    // The row that was pressed comes last: the next range begins there.
    set(from < to ? between : between.reverse(), box.checked);
  }

  /** Select the row of the box and the next one, and move the focus there. */
  function extend(box, by) {
    const all = boxes();
    const next = all[all.indexOf(box) + by];
    if (!next) return;
    const control = document.activeElement === box ? next : next.closest("li")?.querySelector("a[href]") ?? next;
    set([box, next], true);
    /** @type {HTMLElement} */ (control).focus({ preventScroll: true });
    control.scrollIntoView({ block: "nearest" });
  }

  list.addEventListener("mousedown", (event) => {
    // Shift would mark the text between two clicks.
    if (event.shiftKey && event.target instanceof Element && event.target.closest(".pick")) event.preventDefault();
  });
  list.addEventListener("click", ({ target, shiftKey }) => {
    if (!(target instanceof Element) || !target.closest(".pick")) return;
    if (!(target instanceof HTMLInputElement)) {
      isRange = shiftKey;
      return;
    }
    const wanted = shiftKey || isRange;
    isRange = false;
    target.focus();
    if (wanted) range(target);
    else set([target], target.checked);
  });
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.target instanceof Element)) return;
    const box = /** @type {HTMLInputElement | null} */ (event.target.closest("li")?.querySelector(".pick input") ?? null);
    const isAllowed = event.key.startsWith("Arrow") || hasSingleKeys();
    if (!box || !isAllowed) return;
    const step = event.shiftKey && Object.hasOwn(STEPS, event.key) ? STEPS[event.key] : 0;
    if (!step && event.key !== "x") return;
    event.preventDefault();
    if (step) extend(box, step);
    else set([box], !box.checked);
  });

  return {
    settle,
    /** Build the box of a row. @param {any} routine */
    box: ({ id, name }) => h("label", { class: "pick" },
      h("input", { type: "checkbox", id: `pick-${id}`, "data-routine": id, checked: selection.ids.has(id), "aria-label": `Select ${name}` })),
  };
}
