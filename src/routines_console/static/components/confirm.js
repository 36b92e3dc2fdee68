/**
 * Ask for confirmation before something that cannot be undone: the user types the name of what is to be deleted.
 */

import { button, h } from "../dom.js";

/**
 * Open the dialog and return whether the user confirmed.
 *
 * @param {string} heading
 * @param {string} name What the user must type.
 * @param {string} consequence What will be lost, in a sentence or two.
 * @param {string} verb The text of the button.
 * @returns {Promise<boolean>}
 */
export function confirmByName(heading, name, consequence, verb) {
  return new Promise((resolve) => {
    const input = h("input", { id: "confirm-name", autocomplete: "off", spellcheck: "false", autocapitalize: "off",
      oninput: () => { yes.disabled = input.value !== name; } });
    const yes = h("button", { class: "danger", disabled: true }, verb);
    const dialog = h("dialog", { "aria-labelledby": "confirm-heading", onclose: () => end(false) },
      h("form", { onsubmit: (event) => { event.preventDefault(); if (!yes.disabled) end(true); } },
        h("h2", { id: "confirm-heading" }, heading), h("p", {}, consequence),
        h("label", { for: "confirm-name" }, "Type ", h("code", { class: "wrap" }, name), " to confirm"), input,
        h("div", { class: "actions" }, yes, button("Keep it", () => end(false)))));

    function end(answer) {
      resolve(answer);
      dialog.remove();
    }

    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}
