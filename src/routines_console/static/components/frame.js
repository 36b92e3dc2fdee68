/**
 * Build the frame of every page: the header, the content, and the line for short messages.
 */

import { button, fill, h, link } from "../dom.js";

const SAID_MILLISECONDS = 6000;
/** The pages of the menu: the first segment of the address, and the text. */
export const PAGES = [
  ["", "Overview"], ["timeline", "Timeline"], ["week", "Week"], ["report", "Report"], ["alerts", "Alerts"], ["tasks", "Tasks"], ["changes", "Changes"], ["feeds", "Feeds"], ["limits", "Limits"],
];

/** Build the frame. @param {{signOut: () => void, find: () => void}} actions */
export function frame({ signOut, find }) {
  const collection = h("span", { class: "collection" });
  const pages = PAGES.map(([path, text]) => link(path ? [path] : [], {}, text));
  const progress = h("div", { class: "progress", hidden: true });
  const main = h("main", { id: "main" });
  const said = h("div", { class: "said", role: "status", "aria-live": "polite" });
  const element = h("div", { class: "frame" },
    h("a", { class: "skip-link", href: "#main", onclick: (event) => skip(event, main) }, "Skip to content"),
    h("header", {},
      h("div", { class: "head" },
        link([], { class: "brand", "aria-label": "Routines, overview" }, mark(), "Routines"), collection,
        h("nav", { "aria-label": "Pages" }, pages),
        button("Find", find, { class: "plain", id: "find", title: "Ctrl K", "aria-haspopup": "dialog" }), button("Sign out", signOut, { class: "plain" }))),
    progress, main, said);
  let timer = 0;

  return {
    element,
    /** Show the name of the collection. @param {string} name */
    collection: (name) => fill(collection, name),
    /** Show that a page is loading. @param {string} first The first segment of its path. */
    opening(first) {
      progress.hidden = false;
      const current = Math.max(0, PAGES.findIndex(([path]) => path === first));
      pages.forEach((page, index) => page.toggleAttribute("data-current", index === current));
      pages.forEach((page, index) => index === current ? page.setAttribute("aria-current", "page") : page.removeAttribute("aria-current"));
    },
    /**
     * Show a page that has loaded.
     *
     * @param {import("../main.js").View} view
     * @param {string} [focus] The id of the element to focus; without it the page starts at the top.
     */
    opened(view, focus) {
      progress.hidden = true;
      document.title = `${view.name} · Routines`;
      fill(main, view.body);
      if (!focus) scrollTo(0, 0);
      const target = (focus && document.getElementById(focus)) || main.querySelector("h1");
      target?.focus({ preventScroll: true });
    },
    /** Show a message for a few seconds. @param {string} text */
    say(text) {
      clearTimeout(timer);
      fill(said, h("p", {}, text));
      timer = setTimeout(() => fill(said), SAID_MILLISECONDS);
    },
  };
}

/** Draw the logo: three slots that have passed and one to come. */
function mark() {
  return h("span", { class: "mark", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i"));
}

/** Move the focus by script, because the address after # names the page. */
function skip(event, main) {
  event.preventDefault();
  main.querySelector("h1")?.focus();
}
