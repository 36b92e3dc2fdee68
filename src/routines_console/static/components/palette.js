/**
 * Find anything by typing: pages, what can be done, other collections, tasks, routines, and a run by its number. Ctrl-K opens it.
 */

import { address, fill, h } from "../dom.js";
import { findRun, readNames } from "../names.js";
import { go } from "../router.js";
import { PAGES } from "./frame.js";
import { COLLECTION_PAGES } from "./switcher.js";

const MOST = 12;
const RUN = /^(?:run\s*)?#?(\d{1,18})$/i;

/**
 * @typedef {object} Entry What can be chosen.
 * @property {string} text
 * @property {string} kind
 * @property {() => unknown} choose
 */

/**
 * Open the palette.
 *
 * @param {import("../session.js").Session} session
 * @param {(text: string) => void} say
 * @param {Entry[]} everywhere What can be done on every page.
 */
export function openPalette(session, say, everywhere) {
  const leaving = new AbortController();
  const input = h("input", { id: "palette-words", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder: "A routine, a task, a page, a run number",
    "aria-label": "Find", "aria-expanded": "true", "aria-controls": "palette-list", oninput: draw, onkeydown: pressed });
  const list = h("ul", { id: "palette-list", role: "listbox", "aria-label": "Found" });
  const status = h("p", { class: "hint", role: "status" });
  const dialog = h("dialog", { class: "palette", "aria-label": "Find", onclose: closed, onclick: (event) => event.target === dialog && dialog.close() }, input, list, status);
  const here = [...actions(), ...pages(), ...everywhere];
  /** @type {Entry[]} */
  let named = [];
  /** @type {Entry[]} */
  let found = [];
  let chosen = 0;

  function draw() {
    found = matching(input.value, [...runOf(session, input.value, say), ...here, ...named]).slice(0, MOST);
    chosen = 0;
    fill(list, found.map((entry, index) => h("li", { id: `palette-${index}`, role: "option", onclick: () => take(entry) },
      h("span", {}, entry.text), h("span", { class: "quiet" }, entry.kind))));
    fill(status, found.length ? "" : "Nothing is called that.");
    mark();
  }

  function mark() {
    [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
    if (found.length) input.setAttribute("aria-activedescendant", `palette-${chosen}`);
    else input.removeAttribute("aria-activedescendant");
    list.children[chosen]?.scrollIntoView({ block: "nearest" });
  }

  function pressed(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (steps && found.length) {
      event.preventDefault();
      chosen = (chosen + steps + found.length) % found.length;
      mark();
    } else if (event.key === "Enter" && found[chosen]) {
      event.preventDefault();
      take(found[chosen]);
    }
  }

  function take(entry) {
    dialog.close();
    entry.choose();
  }

  function closed() {
    leaving.abort();
    dialog.remove();
  }

  document.body.append(dialog);
  dialog.showModal();
  draw();
  readNames(session, leaving.signal).then(({ tasks, routines }) => {
    named = [
      ...routines.map(({ task, name }) => entryOf(`${task}/${name}`, "routine", ["routines", task, name])),
      ...tasks.map((name) => entryOf(name, "task", ["tasks", name])),
    ];
    draw();
  }).catch((error) => {
    if (!leaving.signal.aborted) fill(status, `Routines and tasks could not be read: ${error.message}`);
  });
}

function entryOf(text, kind, path) {
  return { text, kind, choose: () => go(address(path)) };
}

function pages() {
  return [...[...PAGES, ...COLLECTION_PAGES].map(([path, text]) => entryOf(text, "page", path ? [path] : [])), entryOf("New routine", "action", ["new"]), entryOf("New task", "action", ["new", "task"])];
}

/** Offer the buttons at the head of the page that is open, and those for what is selected in it. */
function actions() {
  const buttons = [...document.querySelectorAll("main :is(.headline, .bulk-bar:not([hidden])) .actions > :is(a, button:enabled)")];
  return buttons.map((each) => ({ text: each.textContent ?? "", kind: "on this page", choose: () => /** @type {HTMLElement} */ (each).click() }));
}

/** Offer the run whose number was typed. The service says which task it is of. */
function runOf(session, typed, say) {
  const [, id] = RUN.exec(typed.trim()) ?? [];
  if (!id) return [];
  const choose = () => findRun(session, id).then((task) => go(address(["runs", task, id])), (error) => say(error.message));
  return [{ text: `Run ${id}`, kind: "run", choose }];
}

/** Return the entries that have all words that were typed, those first that begin with the first of them. */
function matching(typed, entries) {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return entries;
  if (RUN.test(typed.trim())) words.length = 0;
  const rank = ({ text }) => text.toLowerCase().split("/").some((part) => part.startsWith(words[0] ?? "")) ? 0 : 1;
  return entries.filter(({ text }) => words.every((word) => text.toLowerCase().includes(word))).sort((one, other) => rank(one) - rank(other));
}
