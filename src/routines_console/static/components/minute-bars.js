/**
 * Draw what falls in each minute of an hour, for the eye: what is beside it says the same in words.
 */

import { h } from "../dom.js";

export const MINUTES = 60;

/**
 * Draw a bar for each minute.
 *
 * @param {number[]} counts How much falls in each of the 60 minutes.
 * @param {(minute: number) => string} name The tooltip of a minute.
 * @param {{wish?: number, quiet?: number | null}} [marked] The minute that is chosen, and the one that is suggested.
 */
export function minuteBars(counts, name, { wish, quiet } = {}) {
  const most = Math.max(...counts, 1);
  const kind = (minute) => [!counts[minute] && "free", minute === wish && "wish", minute === quiet && "quiet-one"].filter(Boolean).join(" ");
  return h("div", { class: "minute-bars", "aria-hidden": "true" }, Array.from({ length: MINUTES }, (_, minute) =>
    h("i", { class: kind(minute) || null, title: name(minute), css: { "--part": counts[minute] / most } })));
}

/** Write a number with two digits. @param {number} number */
export function two(number) {
  return String(number).padStart(2, "0");
}
