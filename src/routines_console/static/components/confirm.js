/**
 * Ask before something that cannot be undone.
 */

import { button, h } from "../dom.js";

/**
 * Ask with two buttons, and return whether the user chose the first.
 *
 * @param {string} heading
 * @param {any} consequence What will be lost or changed, in a sentence or two, or built from elements.
 * @param {string} verb The text of the button that goes on.
 * @param {string} otherwise The text of the button that does not.
 * @returns {Promise<boolean>}
 */
export function confirm(heading, consequence, verb, otherwise) {
  return ask((end) => {
    const stay = button(otherwise, () => end(false), { class: "primary", autofocus: true });
    return h("form", { onsubmit: (event) => event.preventDefault() },
      h("h2", { id: "confirm-heading" }, heading), h("div", { class: "consequence" }, consequence),
      h("div", { class: "actions" }, stay, button(verb, () => end(true))));
  });
}

/**
 * Ask for the name of what is to be deleted, and return whether the user typed it and confirmed.
 *
 * @param {string} heading
 * @param {string} name What the user must type.
 * @param {string} consequence What will be lost, in a sentence or two.
 * @param {string} verb The text of the button.
 * @returns {Promise<boolean>}
 */
export function confirmByName(heading, name, consequence, verb) {
  return ask((end) => {
    const input = h("input", { id: "confirm-name", autocomplete: "off", spellcheck: "false", autocapitalize: "off", autofocus: true,
      oninput: () => { yes.disabled = input.value !== name; } });
    const yes = h("button", { class: "danger", disabled: true }, verb);
    return h("form", { onsubmit: (event) => { event.preventDefault(); if (!yes.disabled) end(true); } },
      h("h2", { id: "confirm-heading" }, heading), h("p", {}, consequence),
      h("label", { for: "confirm-name" }, "Type ", h("code", { class: "wrap" }, name), " to confirm"), input,
      h("div", { class: "actions" }, yes, button("Keep it", () => end(false))));
  });
}

/**
 * Open a dialog and return the user's answer; closing it by Escape means no.
 *
 * @param {(end: (answer: boolean) => void) => Node} build
 * @returns {Promise<boolean>}
 */
function ask(build) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "confirm-heading", onclose: () => end(false) }, build(end));

    function end(answer) {
      resolve(answer);
      // Closed before it is removed, so that the focus returns to where it was.
      dialog.close();
      dialog.remove();
    }

    document.body.append(dialog);
    dialog.showModal();
  });
}
