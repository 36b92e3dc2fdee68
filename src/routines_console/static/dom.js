/**
 * Build elements. Everything that comes from the service becomes a text node or an attribute that cannot run code:
 * nothing in the console turns text into markup.
 *
 * @typedef {Node | string | number | null | undefined | false} Child
 */

import { prefix } from "./scope.js";

const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

/**
 * Build an HTML element. Attributes that begin with `on` take a function; true sets an attribute without a value; null,
 * undefined and false leave it out; `css` takes custom properties.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, given] of Object.entries(attributes)) {
    if (given === null || given === undefined || given === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), handler(given));
    else if (name === "css") for (const [key, text] of Object.entries(given)) element.style.setProperty(key, text);
    else element.setAttribute(name, given === true ? "" : String(given));
  }
  element.append(...nodes(children));
  return element;
}

function handler(given) {
  if (typeof given !== "function") throw new TypeError("an event handler must be a function, not a string");
  return given;
}

/** @param {any[]} children */
function nodes(children) {
  return children.flat(4).filter((child) => child !== null && child !== undefined && child !== false).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child)));
}

/**
 * Replace the children of an element. If the focus was inside, the new element with the same id gets it.
 *
 * @param {Element} parent
 * @param {...(Child | Child[])} children
 */
export function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement?.id : null;
  parent.replaceChildren(...nodes(children));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/**
 * Remove an element that the user is done with. If the focus was in it, what comes next gets it: the Tab key goes on from there.
 *
 * @param {HTMLElement} element
 * @param {HTMLElement | null | undefined} next
 */
export function giveWay(element, next) {
  const hadFocus = element.contains(document.activeElement);
  element.remove();
  if (hadFocus && next) focusIn(next);
}

/** Focus the first control in an element; itself if it has none. @param {HTMLElement} element */
export function focusIn(element) {
  const target = element.matches(FOCUSABLE) ? element : /** @type {HTMLElement | null} */ (element.querySelector(FOCUSABLE));
  if (!target) element.tabIndex = -1;
  (target ?? element).focus();
}

/**
 * Build a link to a page of the console. Each segment of the path is encoded, so that no name can lead elsewhere.
 *
 * @param {(string | number)[]} path
 * @param {Record<string, any>} attributes
 * @param {...(Child | Child[])} children
 */
export function link(path, attributes, ...children) {
  return h("a", { ...attributes, href: address(path) }, ...children);
}

/**
 * Return the address of a page of the console.
 *
 * @param {(string | number)[]} path
 * @param {Record<string, string>} [query]
 */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, text]) => text);
  return `#/${prefix()}${path.map((segment) => encodeURIComponent(segment)).join("/")}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/**
 * Build a button.
 *
 * @param {Child | Child[]} text
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} [attributes]
 */
export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", ...attributes, onclick }, text);
}

/**
 * Build the heading of a page, which gets the focus when the page opens.
 *
 * @param {...(Child | Child[])} children
 */
export function title(...children) {
  return h("h1", { tabindex: "-1", id: "title" }, ...children);
}

/**
 * Build a section of a page with its heading.
 *
 * @param {string} heading
 * @param {Record<string, any>} attributes
 * @param {...(Child | Child[])} children
 */
export function section(heading, attributes, ...children) {
  return h("section", { "aria-label": heading, ...attributes }, h("h2", {}, heading), ...children);
}

/**
 * Build a list of names and values.
 *
 * @param {[string, Child | Child[]][]} rows
 */
export function facts(rows) {
  return h("dl", { class: "facts" }, rows.map(([name, content]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, content))));
}

/**
 * Build the message shown in place of an empty list.
 *
 * @param {string} heading
 * @param {...(Child | Child[])} children
 */
export function empty(heading, ...children) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, heading), h("p", {}, ...children));
}
