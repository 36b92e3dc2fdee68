/**
 * Show the saved views of the overview as links, and save the filter of the moment as another.
 */

import { address, button, fill, h } from "../dom.js";
import { deleteView, savedViews, saveView } from "../saved-views.js";
import { field, focusError, showError } from "./fields.js";

const MOST_CHARACTERS = 40;

/**
 * Build the line; call `draw` with each new filter.
 *
 * @param {string} collection
 * @param {(text: string) => void} say
 */
export function views(collection, say) {
  const element = h("div", { class: "saved-views" });
  /** @type {Record<string, string>} What of the filter is not left as it is at first. */
  let chosen = {};
  let drawn = "";

  function draw() {
    const all = savedViews(collection);
    const whole = JSON.stringify([all, chosen]);
    if (whole === drawn) return;
    drawn = whole;
    const here = address([], chosen);
    const current = all.find(({ query }) => address([], ordered(query)) === here);
    const isAny = Object.keys(chosen).length > 0;
    element.hidden = !all.length && !isAny;
    fill(element,
      all.length > 0 && h("nav", { "aria-label": "Saved views" }, all.map((view) =>
        h("a", { class: "chip", href: address([], ordered(view.query)), "aria-current": view === current ? "page" : null }, view.name))),
      current && button(`Delete the view ${current.name}`, () => remove(current.name), { class: "plain", id: "view-delete" }),
      isAny && !current && button("Save this view", ask, { class: "plain", id: "view-save", "aria-haspopup": "dialog" }));
  }

  function remove(name) {
    deleteView(collection, name);
    draw();
    say(`The view ${name} was deleted.`);
    element.querySelector("button")?.focus();
  }

  async function ask() {
    const name = await askForName();
    if (!name) return;
    try {
      saveView(collection, { name, query: chosen });
      say(`The view ${name} was saved in this browser.`);
    } catch {
      say("The browser does not keep it. Bookmark the address instead: it has the whole filter.");
    }
    draw();
    element.querySelector("button")?.focus();
  }

  return {
    element,
    /** @param {Record<string, string>} filter */
    draw(filter) {
      chosen = ordered(filter);
      draw();
    },
  };
}

/** Return what is given of a filter, always in the same order, so that two can be compared by their addresses. */
function ordered(filter) {
  return Object.fromEntries(Object.entries(filter).filter(([, text]) => text).sort(([one], [other]) => one < other ? -1 : 1));
}

/** @returns {Promise<string | null>} */
function askForName() {
  return new Promise((resolve) => {
    const name = h("input", { id: "view-name", maxlength: MOST_CHARACTERS, autocomplete: "off" });
    const form = h("form", { onsubmit, novalidate: true },
      h("h2", { id: "view-heading" }, "Save this view"),
      field("name", "Name", name, "Kept in this browser, with the filter and the order. A view of the same name is replaced."),
      h("div", { class: "actions" }, h("button", { class: "primary", id: "view-keep" }, "Save"), button("Cancel", () => end(null))));
    const dialog = h("dialog", { "aria-labelledby": "view-heading", onclose: () => end(null) }, form);

    function onsubmit(event) {
      event.preventDefault();
      if (name.value.trim()) return end(name.value.trim());
      showError(form, "name", "Give it a name");
      focusError(form);
    }

    function end(answer) {
      resolve(answer);
      dialog.close();
      dialog.remove();
    }

    document.body.append(dialog);
    dialog.showModal();
    name.focus();
  });
}
