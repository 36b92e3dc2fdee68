/**
 * Show many lanes page by page: a page is read when it comes near the screen, and again when what it shows is old by then. So the
 * number of requests depends on the screen, not on the number of routines.
 *
 * @typedef {object} Page
 * @property {any} cursor Where it begins; null for the first.
 * @property {HTMLElement} element
 * @property {boolean} isNear Whether it is on the screen, or nearly.
 * @property {number} age When it was read, as a count of refreshes.
 * @property {any[]} items
 */

import { button, fill, h } from "../dom.js";
import { complaint } from "./failure.js";

/** How far a page may be from the screen when it is read, as a part of the screen's height. */
const MARGIN = "50%";

/**
 * Build the list; call `restart` to fill it.
 *
 * @param {object} options
 * @param {(cursor: any) => Promise<{items: any[], next: any}>} options.read
 * @param {(items: any[], before: any) => Node[]} options.draw Draw a page; `before` is the last item of the page before it, if any.
 * @param {(hadFocus: boolean) => void} options.drawn Called after a page was drawn, with whether the focus was in it.
 * @param {() => Node} options.nothing Shown in place of an empty list.
 * @param {AbortSignal} signal
 */
export function lanePages({ read, draw, drawn, nothing }, signal) {
  const element = h("div", {});
  /** @type {Page[]} */
  let pages = [];
  let refreshes = 0;
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const page = pages.find((each) => each.element === target);
      if (!page) continue;
      page.isNear = isIntersecting;
      if (isIntersecting && page.age !== refreshes) load(page).catch((error) => showFailure(page, error));
    }
  }, { rootMargin: MARGIN });
  signal.addEventListener("abort", () => observer.disconnect());

  /** @returns {Page} */
  function pageAt(cursor) {
    const page = { cursor, element: h("ul", { class: "lanes", "aria-label": "Routines" }, h("li", { class: "quiet loading" }, "Loading…")), isNear: false, age: -1, items: [] };
    observer.observe(page.element);
    return page;
  }

  /** Read a page and draw it, unless a refresh has begun meanwhile. @param {Page} page */
  async function load(page) {
    const mine = refreshes;
    page.age = mine;
    const { items, next } = await read(page.cursor);
    if (mine !== refreshes || !pages.includes(page)) return;
    page.items = items;
    const index = pages.indexOf(page);
    const hadFocus = page.element.contains(document.activeElement);
    fill(page.element, draw(items, pages[index - 1]?.items.at(-1)));
    drawn(hadFocus);
    if (!index && !items.length) return drop(0, nothing());
    if (next === null) drop(index + 1);
    else if (!pages[index + 1]) append(next);
    else if (pages[index + 1].cursor !== next) Object.assign(pages[index + 1], { cursor: next, age: -1 });
  }

  function append(cursor) {
    const page = pageAt(cursor);
    pages.push(page);
    element.append(page.element);
  }

  /** Remove the pages from this one on. */
  function drop(index, instead = null) {
    for (const page of pages.splice(index)) {
      observer.unobserve(page.element);
      page.element.remove();
    }
    if (instead) fill(element, instead);
  }

  function showFailure(page, error) {
    if (signal.aborted || !pages.includes(page)) return;
    page.age = -1;
    fill(page.element, h("li", {}, complaint(error), button("Try again", () => load(page).catch((again) => showFailure(page, again)))));
  }

  /** Begin again with the first page, since there are other lanes to show. */
  async function restart() {
    refreshes += 1;
    drop(1);
    if (!pages.length) {
      fill(element);
      append(null);
    }
    await load(pages[0]);
  }

  /** Read what is near the screen again; the rest is read when it comes near. */
  async function refresh() {
    if (!pages.length) return restart();
    refreshes += 1;
    const near = pages.filter(({ isNear }) => isNear);
    await Promise.all((near.length ? near : pages.slice(0, 1)).map(load));
  }

  return { element, restart, refresh };
}
