/**
 * Elements out of values. Whatever comes from the service becomes a text node or an attribute that cannot run:
 * nothing in the console turns text into markup.
 *
 * @typedef {Node | string | number | null | undefined | false} Child
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `on…` attributes are functions; true is an attribute without a value; null, undefined and false are left
 * out; `css` holds custom properties.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/**
 * The same of an image.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 */
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, attributes, children) {
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
  if (typeof given !== "function") throw new TypeError("a handler is a function, never a text");
  return given;
}

/** @param {any[]} children */
function nodes(children) {
  return children.flat(4).filter((child) => child !== null && child !== undefined && child !== false).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child)));
}

/**
 * Put these children in the place of what an element holds. Who has the focus inside keeps it, by its id.
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
 * A link to a page of the console; each part of the path is encoded, so that no name leads elsewhere.
 *
 * @param {(string | number)[]} path
 * @param {Record<string, any>} attributes
 * @param {...(Child | Child[])} children
 */
export function link(path, attributes, ...children) {
  return h("a", { ...attributes, href: address(path) }, ...children);
}

/**
 * The address of a page of the console.
 *
 * @param {(string | number)[]} path
 * @param {Record<string, string>} [query]
 */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, text]) => text);
  return `#/${path.map((part) => encodeURIComponent(part)).join("/")}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/**
 * A button that does something.
 *
 * @param {string} text
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} [attributes]
 */
export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", ...attributes, onclick }, text);
}

/**
 * A page's name, which gets the focus when the page is opened.
 *
 * @param {...(Child | Child[])} children
 */
export function title(...children) {
  return h("h1", { tabindex: "-1", id: "title" }, ...children);
}

/**
 * A part of a page under a heading.
 *
 * @param {string} heading
 * @param {Record<string, any>} attributes
 * @param {...(Child | Child[])} children
 */
export function section(heading, attributes, ...children) {
  return h("section", { "aria-label": heading, ...attributes }, h("h2", {}, heading), ...children);
}

/**
 * Names and values.
 *
 * @param {[string, Child | Child[]][]} rows
 */
export function facts(rows) {
  return h("dl", { class: "facts" }, rows.map(([name, content]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, content))));
}

/**
 * What stands where there is nothing to show yet.
 *
 * @param {string} heading
 * @param {...(Child | Child[])} children
 */
export function empty(heading, ...children) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, heading), h("p", {}, ...children));
}
