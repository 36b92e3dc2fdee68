/**
 * Shortcuts of the keyboard. Those of a single key can be turned off, since programs that listen to speech send such keys.
 */

import { button, h } from "./dom.js";
import { hasSingleKeys, setSingleKeys } from "./session.js";

/** What is shown in the help: the keys, and what they do. */
const HELP = [
  ["Ctrl K", "Find a page, routine, task or run, or do something on this page"], ["/", "Search in the list, or find anything"],
  ["j, k", "Next and previous line of a list"],
  ["x", "Select the routine of the line"], ["Shift j, k", "Select lines one after another, as Shift with the arrow keys does"], ["a", "Go to what can be done with the selected routines"], ["r", "Run again or run now: opens the form or goes to the button, and sends nothing"], ["e", "Edit the routine or task of this page"],
  ["+, -", "Timeline: show a shorter or a longer time"], ["Arrows", "Move between the marks of the timeline or of a strip, and the hours of the week"],
  ["?", "This help"], ["Enter", "Open what has the focus"], ["Esc", "Close a dialog or a search"],
];
const LINES = "main :is(.rows, .runs, .ledger, .changes, .deliveries) > li, main .lanes > .lane, main .report tbody > tr";

/**
 * Listen to the keyboard.
 *
 * @param {() => void} find Opens the palette.
 */
export function listen(find) {
  /** @type {Record<string, () => void>} */
  const single = {
    "/": () => search(find), j: () => move(1), k: () => move(-1), r: toRun, e: () => press("edit"), "?": help,
    a: () => document.getElementById("bulk-bar")?.focus(),
    "+": () => press("zoom-in"), "=": () => press("zoom-in"), "-": () => press("zoom-out"),
  };
  addEventListener("keydown", ({ key, target }) => (key === "Tab" || !isTyping(target)) && showHeadings(true), true);
  addEventListener("pointerdown", () => showHeadings(false), true);
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      return find();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || !hasSingleKeys()) return;
    if (!Object.hasOwn(single, event.key)) return;
    event.preventDefault();
    single[event.key]();
  });
}

/** Show that a heading has the focus, as after a page has opened, only to those who go by the keyboard. @param {boolean} isShown */
function showHeadings(isShown) {
  document.documentElement.toggleAttribute("data-keys", isShown);
}

function isTyping(target) {
  return target instanceof Element && target.matches("input:not([type=radio], [type=checkbox]), select, textarea");
}

/** Go to the search of the page; where there is none, find anything. */
function search(find) {
  const field = /** @type {HTMLElement | null} */ (document.getElementById("search"));
  if (field) field.focus();
  else find();
}

/** Move the focus to the first link of another line. */
function move(by) {
  const links = [...document.querySelectorAll(LINES)].map((line) => /** @type {HTMLElement | null} */ (line.querySelector("a[href]"))).filter((each) => each !== null);
  const line = document.activeElement?.closest(LINES);
  const from = links.findIndex((each) => line?.contains(each));
  const to = links[from < 0 ? 0 : from + by];
  to?.focus({ preventScroll: true });
  to?.scrollIntoView({ block: "nearest" });
}

/** Open the form that runs it, or go to the button. Nothing is sent: a single key is pressed by mistake too easily. */
function toRun() {
  const form = document.querySelector("#run-again, #run-task");
  if (form instanceof HTMLDetailsElement) form.open = true;
  const control = /** @type {HTMLElement | null} */ (form?.querySelector("input, select, textarea, button") ?? document.getElementById("run-now"));
  control?.focus({ preventScroll: true });
  control?.scrollIntoView({ block: "center" });
}

/** Press what has this id, if the page has it. @param {string} id */
function press(id) {
  document.getElementById(id)?.click();
}

/** Show the shortcuts. */
function help() {
  const dialog = h("dialog", { "aria-labelledby": "keys-heading", onclose: () => dialog.remove() },
    h("form", { onsubmit: (event) => event.preventDefault() },
      h("h2", { id: "keys-heading" }, "Keys"),
      h("dl", { class: "keys" }, HELP.map(([keys, text]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, text)))),
      h("label", { class: "toggle" }, h("input", { type: "checkbox", id: "single-keys", checked: hasSingleKeys(),
        oninput: ({ currentTarget }) => setSingleKeys(currentTarget.checked) }), "Use single keys"),
      h("div", { class: "actions" }, button("Close", () => dialog.close(), { class: "primary", autofocus: true }))));
  document.body.append(dialog);
  dialog.showModal();
}
