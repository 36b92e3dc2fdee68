/**
 * Build a text field for JSON with numbered lines. What is wrong is shown at its line, and in a list that leads there.
 */

import { button, fill, h } from "../dom.js";
import { lineOf, readJson } from "../json-text.js";
import { capital } from "../words.js";

const SETTLED_MILLISECONDS = 300;

/**
 * Build the field.
 *
 * @param {string} id Also the path of the whole value in the request.
 * @param {string} label
 * @param {string} given The text to begin with.
 */
export function jsonEditor(id, label, given) {
  const gutter = h("div", { class: "gutter" });
  const marks = h("div", { class: "marks" });
  const list = h("ul", { class: "faults", id: `${id}-faults` });
  const input = h("textarea", { id, class: "code", wrap: "off", spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-describedby": `${id}-faults`, oninput: typed }, given);
  const element = h("div", { class: "field editor", "data-field": id },
    h("label", { for: id }, label), list,
    h("div", { class: "editor-scroll" }, h("div", { class: "editor-body" }, h("div", { "aria-hidden": "true" }, gutter), h("div", { class: "editor-text" }, h("div", { "aria-hidden": "true" }, marks), input))));
  /** What the service has found when it was asked last. @type {{field: string, message: string}[]} */
  let told = [];
  let timer = 0;

  function typed() {
    fit();
    clearTimeout(timer);
    timer = setTimeout(() => draw(), SETTLED_MILLISECONDS);
  }

  /** Make room for all lines, so that the page scrolls and not the field. */
  function fit() {
    const lines = input.value.split("\n");
    input.rows = lines.length + 1;
    input.style.setProperty("min-width", `${Math.max(...lines.map(({ length }) => length)) + 4}ch`);
    if (gutter.childElementCount !== lines.length) fill(gutter, lines.map((_, index) => h("span", {}, index + 1)));
  }

  /** Show all faults, and return the first; null if there is none. */
  function draw() {
    const read = readJson(input.value, id);
    const found = [...read.faults, ...told.map(({ field, message }) => ({ line: lineOf(read.lines, field), text: describe(field, message) }))];
    const lines = input.value.split("\n");
    fill(list, found.map(({ line, text }) => h("li", {}, line && [button(`Line ${line}`, () => go(line), { class: "plain" }), " "], capital(text))));
    fill(marks, found.filter(({ line }) => line).map(({ line, text }) =>
      h("p", { css: { "--line": line - 1, "--length": lines[line - 1]?.length ?? 0 } }, h("span", {}, text))));
    [...gutter.children].forEach((each, index) => each.classList.toggle("wrong", found.some(({ line }) => line === index + 1)));
    if (found.length) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    return found[0] ?? null;
  }

  function describe(field, message) {
    const path = field.slice(id.length + 1);
    return path ? `${path}: ${message}` : message;
  }

  /** Put the caret at the beginning of a line. */
  function go(line) {
    const begin = input.value.split("\n").slice(0, line - 1).reduce((sum, { length }) => sum + length + 1, 0);
    const text = input.value.slice(begin).split("\n")[0];
    const start = begin + text.length - text.trimStart().length;
    input.focus({ preventScroll: true });
    input.setSelectionRange(start, start);
    gutter.children[line - 1]?.scrollIntoView({ block: "center" });
  }

  fit();
  return {
    element,
    text: () => input.value,
    go,
    /** Return the value; undefined, with the faults shown and the caret at the first, if the text is not JSON. */
    read() {
      told = [];
      const fault = draw();
      if (fault) go(fault.line);
      return readJson(input.value, id).value;
    },
    /** Show what the service has found, with the caret at the first. @param {{field: string, message: string}[]} errors Those of this field alone. */
    show(errors) {
      told = errors;
      const fault = draw();
      if (fault) go(fault.line ?? 1);
    },
    /** Replace the text, in a way that the browser can undo. @param {string} text */
    replace(text) {
      input.focus({ preventScroll: true });
      input.select();
      if (!document.execCommand("insertText", false, text)) input.value = text;
      fit();
      draw();
    },
    /** Return the line of a path of the value. @param {string} path */
    lineOf: (path) => lineOf(readJson(input.value, id).lines, path),
  };
}
