/**
 * Ask for the value of an environment variable, and for its name if it is new. The value is in the dialog alone, which goes once it is saved.
 */

import { button, fill, h } from "../dom.js";
import { complaint } from "./failure.js";
import { clearErrors, field, focusError, showError, showErrors } from "./fields.js";

const FIELD = "environment_variables";

/**
 * Open the dialog; ends when it was closed.
 *
 * @param {string} given The name of the variable to replace; empty for a new one.
 * @param {(name: string, value: string) => Promise<boolean>} save Returns whether it was saved. The dialog shows its error.
 * @param {AbortSignal} signal Closes the dialog.
 * @returns {Promise<void>}
 */
export function askForVariable(given, save, signal) {
  return new Promise((resolve) => {
    const name = h("input", { id: "variable-name", value: given, readonly: Boolean(given), autocomplete: "off", spellcheck: "false", autocapitalize: "off", oninput: named });
    // An input of passwords would put several lines, such as those of a certificate, into one.
    const value = h("textarea", { id: "variable-value", class: "code masked", rows: 3, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
    const isShown = h("input", { type: "checkbox", id: "variable-shown", onchange: () => value.classList.toggle("masked", !isShown.checked) });
    const trouble = h("div", {});
    const submit = h("button", { class: "primary", id: "variable-save" }, given ? "Replace" : "Add");
    const ofName = field("", "Name", name);
    const form = h("form", { onsubmit, novalidate: true },
      h("h2", { id: "variable-heading" }, given ? `Replace ${given}` : "Add a variable"),
      h("div", { "data-field": FIELD }, ofName),
      field("value", "Value", value, "It may have several lines. Line breaks at its end are left out."),
      h("label", { class: "toggle" }, isShown, "Show what I type"), trouble,
      h("div", { class: "actions" }, submit, button("Cancel", end)));
    const dialog = h("dialog", { "aria-labelledby": "variable-heading", onclose: end }, form);

    /** Follow the name, because the service refers to the variable by it. */
    function named() {
      ofName.dataset.field = `${FIELD}.${name.value.trim()}`;
    }
    named();

    async function onsubmit(event) {
      event.preventDefault();
      if (submit.disabled) return;
      clearErrors(form);
      fill(trouble);
      const text = value.value.replace(/\n+$/, "");
      if (!name.value.trim()) showError(form, FIELD, "give the variable a name");
      if (!text) showError(form, "value", "enter a value");
      if (form.querySelector("[aria-invalid]")) return focusError(form);
      submit.disabled = true;
      try {
        if (await save(name.value.trim(), text)) end();
      } catch (error) {
        fill(trouble, showErrors(form, error) ? null : complaint(error));
      } finally {
        submit.disabled = false;
      }
    }

    function end() {
      value.value = "";
      signal.removeEventListener("abort", end);
      resolve();
      dialog.close();
      dialog.remove();
    }

    signal.addEventListener("abort", end);
    document.body.append(dialog);
    dialog.showModal();
    (given ? value : name).focus();
  });
}
