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
  const marks = h("div", { class: "line-faults" });
  const list = h("ul", { class: "faults", id: `${id}-faults` });
  const input = h("textarea", { id, class: "code", wrap: "off", spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-describedby": `${id}-faults`, oninput: typed }, given);
  const element = h("div", { class: "field editor", "data-field": id },
    h("label", { for: id }, label), list,
    h("div", { class: "editor-scroll" }, h("div", { class: "editor-body" }, h("div", { "aria-hidden": "true" }, gutter), h("div", { class: "editor-text" }, h("div", { "aria-hidden": "true" }, marks), input))));
  /** What the service has found when it was asked last, with the text of the line then. @type {{field: string, message: string, was: string | undefined}[]} */
  let told = [];
  let timer = 0;

  function typed() {
    fit();
    clearTimeout(timer);
    timer = setTimeout(settled, SETTLED_MILLISECONDS);
  }

  /** Forget what was found in lines that have changed since: whether they are right now is told when the task is saved. */
  function settled() {
    const { lines, value } = readJson(input.value, id);
    if (value !== undefined) told = told.filter(({ field, was }) => textAt(lineOf(lines, field)) === was);
    draw();
  }

  function textAt(line) {
    return line ? input.value.split("\n")[line - 1] : undefined;
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
    const said = told.map(({ field, message }) => ({ line: lineOf(read.lines, field), path: field.slice(id.length + 1), text: message }));
    const found = [...read.faults.map((fault) => ({ ...fault, path: "" })), ...said].sort((one, other) => (one.line ?? 0) - (other.line ?? 0));
    fill(list, found.map(({ line, path, text }) => h("li", {}, line && [button(`Line ${line}`, () => go(line), { class: "plain" }), " "],
      path ? [h("code", {}, path), `: ${text}`] : capital(text))));
    const wrong = [...new Set(found.map(({ line }) => line).filter(Boolean))];
    fill(marks, wrong.map((line) => h("p", { css: { "--line": line - 1, "--length": textAt(line)?.length ?? 0 } },
      found.filter((fault) => fault.line === line).map(({ text }) => text).join("; "))));
    [...gutter.children].forEach((each, index) => each.classList.toggle("wrong", wrong.includes(index + 1)));
    if (found.length) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    return found[0] ?? null;
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
      const { lines } = readJson(input.value, id);
      told = errors.map((error) => ({ ...error, was: textAt(lineOf(lines, error.field)) }));
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
