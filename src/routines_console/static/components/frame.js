/**
 * The head of every page, the place for its content, and the line that says what was done.
 */

import { button, fill, h, link } from "../dom.js";

const SAID_MILLISECONDS = 6000;

/** @param {{signOut: () => void}} actions */
export function frame({ signOut }) {
  const collection = h("span", { class: "collection" });
  const pages = [["", "Overview"], ["tasks", "Tasks"]].map(([path, text]) => link(path ? [path] : [], {}, text));
  const progress = h("div", { class: "progress", hidden: true });
  const main = h("main", { id: "main" });
  const said = h("div", { class: "said", role: "status", "aria-live": "polite" });
  const element = h("div", { class: "frame" },
    h("a", { class: "skip-link", href: "#main", onclick: (event) => skip(event, main) }, "Skip to the content"),
    h("header", {},
      h("div", { class: "head" },
        link([], { class: "brand", "aria-label": "Routines, overview" }, mark(), "Routines"), collection,
        h("nav", { "aria-label": "Pages" }, pages), button("Sign out", signOut, { class: "plain" }))),
    progress, main, said);
  let timer = 0;

  return {
    element,
    /** @param {string} name */
    collection: (name) => fill(collection, name),
    /** A page was asked for. @param {string} first The first part of its path. */
    opening(first) {
      progress.hidden = false;
      const current = first === "tasks" ? 1 : 0;
      pages.forEach((page, index) => page.toggleAttribute("data-current", index === current));
      pages.forEach((page, index) => index === current ? page.setAttribute("aria-current", "page") : page.removeAttribute("aria-current"));
    },
    /**
     * It is there.
     *
     * @param {import("../main.js").View} view
     * @param {string} [focus] The id of what gets the focus; else the page begins at its top.
     */
    opened(view, focus) {
      progress.hidden = true;
      document.title = `${view.name} · Routines`;
      fill(main, view.body);
      if (!focus) scrollTo(0, 0);
      const target = (focus && document.getElementById(focus)) || main.querySelector("h1");
      target?.focus({ preventScroll: true });
    },
    /** @param {string} text */
    say(text) {
      clearTimeout(timer);
      fill(said, h("p", {}, text));
      timer = setTimeout(() => fill(said), SAID_MILLISECONDS);
    },
  };
}

/** The sign of the console: four slots, one of them to come. */
function mark() {
  return h("span", { class: "mark", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i"));
}

/** The address after # is the page's, so the jump is made by hand. */
function skip(event, main) {
  event.preventDefault();
  main.querySelector("h1")?.focus();
}
