/**
 * Build form fields: a label, a control, a hint, and room for the service's error message.
 */

import { Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { capital } from "../words.js";

let made = 0;

/**
 * Build a field around a control.
 *
 * @param {string} path The field's name in the request, such as `cadence.hour_utc`; problem documents use the same names.
 * @param {string} text The label.
 * @param {any} control
 * @param {any} [hint]
 */
export function field(path, text, control, hint) {
  made += 1;
  const id = control.id || `field-${made}`;
  control.id = id;
  control.setAttribute("aria-describedby", hint ? `${id}-hint ${id}-error` : `${id}-error`);
  return h("div", { class: "field", "data-field": path },
    h("label", { for: id }, text), control,
    h("p", { class: "field-error", id: `${id}-error` }),
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint));
}

/** Return the number in an input; null if it is empty. @param {any} input */
export function numberOrNull(input) {
  return input.value === "" ? null : Number(input.value);
}

/** Remove all error messages from a form. @param {HTMLElement} form */
export function clearErrors(form) {
  for (const place of form.querySelectorAll(".field-error")) fill(place);
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

/**
 * Show each error next to the field that it names, and focus the first of these fields.
 *
 * @param {HTMLElement} form
 * @param {any} error
 * @returns {boolean} Whether every error could be shown next to a field.
 */
export function showErrors(form, error) {
  clearErrors(form);
  if (!(error instanceof Problem) || !error.errors.length) return false;
  const placed = error.errors.map(({ field: name, message }) => showError(form, name, message));
  focusError(form);
  return placed.every(Boolean);
}

/** Focus the first input whose content is not valid, also one in a part of the form that is closed. @param {HTMLElement} form */
export function focusError(form) {
  const input = /** @type {HTMLElement | null} */ (form.querySelector("[aria-invalid]"));
  input?.closest("details")?.setAttribute("open", "");
  input?.focus();
}

/**
 * Show an error next to the field that it names, or next to the field that contains that one.
 *
 * @param {HTMLElement} form
 * @param {string} name
 * @param {string} message
 * @returns {boolean} False if the form has no such field.
 */
export function showError(form, name, message) {
  /** @type {any[]} */
  const fields = [...form.querySelectorAll("[data-field]")].filter((each) => covers(each.getAttribute("data-field"), name));
  const best = fields.sort((one, other) => other.dataset.field.length - one.dataset.field.length)[0];
  const place = best?.querySelector(":scope > .field-error") ?? best?.querySelector(".field-error");
  if (!place) return false;
  const within = name.slice(best.dataset.field.length + 1);
  const text = !within ? message : /^\d+$/.test(within) ? `entry ${Number(within) + 1}: ${message}` : `${name}: ${message}`;
  fill(place, place.textContent ? `${place.textContent}; ${text}` : capital(text));
  // A checkbox says only whether the value beside it counts.
  (best.querySelector("input:not([type=checkbox]), select, textarea") ?? best.querySelector("input"))?.setAttribute("aria-invalid", "true");
  return true;
}

/** Return whether a field is the one that an error names, or contains it. */
function covers(path, name) {
  return name === path || name.startsWith(`${path}.`);
}
