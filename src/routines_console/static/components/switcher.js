/**
 * Show the collection of the page with the pages of its menu, and switch to others that there are keys for. They are links, so that one
 * can be opened in another tab.
 */

import { button, fill, h, link } from "../dom.js";
import { home } from "../scope.js";

/** The pages of its menu, as those of the frame: they are of the collection as a whole. */
export const COLLECTION_PAGES = [["environment", "Environment"]];

/** Build the menu. @param {{signOut: (collection: string | null) => void, addKey: () => void}} actions */
export function switcher({ signOut, addKey }) {
  const summary = h("summary", { id: "collection" });
  const list = h("div", { class: "menu" });
  const element = h("details", { class: "collection", onkeydown: pressed, onfocusout: left }, summary, list);

  function close() {
    element.open = false;
  }

  function pressed(event) {
    if (event.key !== "Escape" || !element.open) return;
    element.open = false;
    summary.focus();
  }

  function left({ relatedTarget }) {
    if (relatedTarget && !element.contains(relatedTarget)) element.open = false;
  }

  function closing(work) {
    return () => {
      element.open = false;
      work();
    };
  }

  return {
    element,
    /** @param {string} current @param {string[]} all */
    show(current, all) {
      const isOne = all.length < 2;
      element.open = false;
      fill(summary, h("span", {}, current));
      summary.setAttribute("aria-label", `${current}, collection`);
      fill(list,
        !isOne && h("ul", { "aria-label": "Collections" }, all.map((each) => h("li", {},
          h("a", { href: home(each), "aria-current": each === current ? "true" : null, onclick: close }, each)))),
        COLLECTION_PAGES.map(([path, text]) => link([path], { onclick: close }, text)),
        button("Add a key…", closing(addKey), { class: "plain", id: "add-key" }),
        !isOne && button(`Sign out of ${current}`, closing(() => signOut(current)), { class: "plain", id: "sign-out-one" }));
    },
  };
}
