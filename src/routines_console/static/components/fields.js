/**
 * Form fields: a label, a control, a hint, and the place where the service's objection is shown.
 */

import { Problem } from "../api.js";
import { fill, h } from "../dom.js";

let made = 0;

/**
 * @param {string} path The field's name in the request, as in `cadence.hour_utc`: what problem documents name.
 * @param {string} text
 * @param {any} control
 * @param {any} [hint]
 */
export function field(path, text, control, hint) {
  made += 1;
  const id = control.id || `field-${made}`;
  control.id = id;
  control.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  return h("div", { class: "field", "data-field": path },
    h("label", { for: id }, text), control,
    h("p", { class: "field-error", id: `${id}-error` }),
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint));
}

/** Take every objection back. @param {HTMLElement} form */
export function clearErrors(form) {
  for (const place of form.querySelectorAll(".field-error")) fill(place);
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

/**
 * Show what the service says beside the fields that it names, and put the focus on the first of them.
 *
 * @param {HTMLElement} form
 * @param {any} error
 * @returns {boolean} Whether each objection found its field.
 */
export function showErrors(form, error) {
  clearErrors(form);
  if (!(error instanceof Problem) || !error.errors.length) return false;
  const placed = error.errors.map(({ field: name, message }) => showError(form, name, message));
  /** @type {HTMLElement | null} */ (form.querySelector("[aria-invalid]"))?.focus();
  return placed.every(Boolean);
}

/**
 * @param {HTMLElement} form
 * @param {string} name
 * @param {string} message
 */
export function showError(form, name, message) {
  /** @type {any[]} */
  const fields = [...form.querySelectorAll("[data-field]")].filter((each) => covers(each.getAttribute("data-field"), name));
  const best = fields.sort((one, other) => other.dataset.field.length - one.dataset.field.length)[0];
  const place = best?.querySelector(":scope > .field-error") ?? best?.querySelector(".field-error");
  if (!place) return false;
  const text = best.dataset.field === name ? message : `${name}: ${message}`;
  fill(place, place.textContent ? `${place.textContent}; ${text}` : capital(text));
  best.querySelector("input, select, textarea")?.setAttribute("aria-invalid", "true");
  return true;
}

/** Whether a field is the one that a problem names, or holds it. */
function covers(path, name) {
  return name === path || name.startsWith(`${path}.`);
}

function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}
