/**
 * Show a JSON value with what can be done with it: copy it, save it, search it, and wrap its lines or not.
 */

import { button, fill, h } from "../dom.js";
import { count } from "../words.js";
import { matching, MOST } from "./json-search.js";
import { json } from "./json-tree.js";
import { copyButton, labelled, saveButton } from "./save.js";

let made = 0;

/**
 * Build the view.
 *
 * @param {any} value
 * @param {object} options
 * @param {string} options.name What it is, for people who do not see where it stands: "the outputs of greet".
 * @param {string} options.file The name of its file, without a suffix.
 * @param {Node} [options.heading]
 * @param {(text: string) => void} options.say
 */
export function jsonView(value, { name, file, heading, say }) {
  const tree = json(value);
  const shown = h("div", { class: "json-body" }, tree);
  const search = searchBar(value, name, (element) => fill(shown, element ?? tree), () => open(false));
  const opener = button(labelled("Search", name), () => open(search.element.hidden), { class: "plain", "aria-expanded": "false" });
  const wrap = button(labelled("Wrap", `the lines of ${name}`), () => turn(wrap.getAttribute("aria-pressed") !== "true"), { class: "plain", "aria-pressed": "true" });

  /** @param {boolean} isOpen */
  function open(isOpen) {
    opener.setAttribute("aria-expanded", String(isOpen));
    search.toggle(isOpen);
    if (!isOpen) opener.focus();
  }

  /** Without wrapping the value scrolls sideways, which the keyboard must be able to do too. @param {boolean} isWrapped */
  function turn(isWrapped) {
    wrap.setAttribute("aria-pressed", String(isWrapped));
    shown.classList.toggle("unwrapped", !isWrapped);
    for (const [attribute, text] of [["tabindex", "0"], ["role", "group"], ["aria-label", name]]) {
      if (isWrapped) shown.removeAttribute(attribute);
      else shown.setAttribute(attribute, text);
    }
  }

  return h("div", { class: "json-view" },
    h("div", { class: "titled" }, heading,
      h("span", { class: "json-buttons" }, copyButton(value, name, say), saveButton(value, name, file), opener, wrap)),
    search.element, shown);
}

/**
 * Build the field. Enter goes to the next match, with Shift to the one before; Escape closes it.
 *
 * @param {any} value
 * @param {string} name
 * @param {(element: Node | null) => void} show Shows what matches; null: the whole value.
 * @param {() => void} close
 */
function searchBar(value, name, show, close) {
  made += 1;
  const input = h("input", { type: "search", id: `json-search-${made}`, "aria-label": `Search ${name}`, autocomplete: "off", spellcheck: "false",
    oninput: find, onkeydown: pressed });
  const status = h("span", { class: "quiet number", role: "status" });
  const next = button(labelled("Next", `match in ${name}`), () => go(1), { class: "plain", disabled: true });
  const element = h("div", { class: "json-search", hidden: true }, input, next, status);
  /** @type {HTMLElement[]} */
  let marks = [];
  let current = 0;

  function find() {
    const typed = input.value;
    const found = typed ? matching(value, typed) : null;
    marks = found?.marks ?? [];
    show(marks.length ? found?.element ?? null : null);
    next.disabled = marks.length < 2;
    fill(status, typed && !marks.length && "No matches");
    current = 0;
    go(0);
  }

  /** @param {number} by */
  function go(by) {
    if (!marks.length) return;
    marks[current]?.removeAttribute("aria-current");
    current = (current + by + marks.length) % marks.length;
    marks[current]?.setAttribute("aria-current", "true");
    marks[current]?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const all = marks.length === MOST ? `the first ${count(MOST, "match", "matches")}` : count(marks.length, "match", "matches");
    fill(status, `${(current + 1).toLocaleString("en")} of ${all}`);
  }

  /** @param {KeyboardEvent} event */
  function pressed(event) {
    if (event.key === "Enter") go(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  }

  return {
    element,
    /** @param {boolean} isOpen */
    toggle(isOpen) {
      element.hidden = !isOpen;
      input.value = "";
      find();
      if (isOpen) input.focus();
    },
  };
}
