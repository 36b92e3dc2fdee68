/**
 * Build the frame of every page: the header, the content, and the line for short messages.
 */

import { LOCAL_ZONE, showsLocal, zoneOf } from "../clock.js";
import { address, button, fill, h, link } from "../dom.js";
import { now } from "../time.js";
import { skeleton } from "./skeleton.js";
import { switcher } from "./switcher.js";

const SAID_MILLISECONDS = 6000;
/** The pages of the menu: the first segment of the address, and the text. */
export const PAGES = [
  ["", "Overview"], ["timeline", "Timeline"], ["week", "Week"], ["report", "Report"], ["alerts", "Alerts"], ["tasks", "Tasks"], ["changes", "Changes"], ["feeds", "Feeds"], ["limits", "Limits"],
];

/**
 * Build the frame.
 *
 * @param {object} actions
 * @param {(collection: string | null) => void} actions.signOut Null for all collections.
 * @param {() => void} actions.addKey
 * @param {() => void} actions.find
 * @param {() => void} actions.turnClock
 */
export function frame({ signOut, addKey, find, turnClock }) {
  const collection = switcher({ signOut, addKey });
  const brand = link([], { class: "brand", "aria-label": "Routines, overview" }, mark(), h("span", {}, "Routines"));
  const clock = button("", turnClock, { class: "plain", id: "clock" });
  const out = button("Sign out", () => signOut(null), { class: "plain", id: "sign-out" });
  const pages = PAGES.map(([path, text]) => link(path ? [path] : [], {}, text));
  const progress = h("div", { class: "progress", hidden: true });
  const main = h("main", { id: "main" }, skeleton());
  const said = h("div", { class: "said", role: "status", "aria-live": "polite" });
  const element = h("div", { class: "frame" },
    h("a", { class: "skip-link", href: "#main", onclick: (event) => skip(event, main) }, "Skip to content"),
    h("header", {},
      h("div", { class: "head" },
        brand, collection.element,
        h("nav", { "aria-label": "Pages" }, pages),
        button("Find", find, { class: "plain", id: "find", title: "Ctrl K", "aria-haspopup": "dialog" }), clock, out)),
    progress, main, said);
  let timer = 0;
  let named = "";
  let name = "";
  let number = 0;

  function sayTitle() {
    document.title = `${number ? `(${number.toLocaleString("en")}) ` : ""}${[name, "Routines"].filter(Boolean).join(" · ")}`;
  }

  /** Say by which clock times are shown. */
  function sayClock() {
    fill(clock, h("span", { class: "unseen" }, "Times in "), showsLocal() ? zoneOf(now()) : "UTC");
    clock.title = showsLocal() ? `Times of ${LOCAL_ZONE}. Press to see UTC.` : `Times in UTC. Press to see those of ${LOCAL_ZONE}.`;
  }

  sayClock();
  return {
    element,
    clock: sayClock,
    /**
     * Show which collection the page is of.
     *
     * @param {string} name
     * @param {string[]} all Those that there are keys for.
     */
    collection(name, all) {
      if (named && name !== named) fill(main, skeleton());
      named = name;
      collection.show(name, all);
      brand.href = address([]);
      PAGES.forEach(([path], index) => { pages[index].href = address(path ? [path] : []); });
      fill(out, all.length > 1 ? "Sign out of all" : "Sign out");
    },
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
      name = view.name;
      sayTitle();
      fill(main, view.body);
      if (!focus) scrollTo(0, 0);
      const target = (focus && document.getElementById(focus)) || main.querySelector("h1");
      target?.focus({ preventScroll: true });
    },
    /** Show how many need attention, in the title of the tab. @param {number} found */
    tell(found) {
      number = found;
      sayTitle();
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
