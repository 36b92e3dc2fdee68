/**
 * Show many lanes page by page: a page is read when it comes near the screen, and again when what it shows is old by then. So the
 * number of requests depends on the screen, not on the number of routines.
 *
 * @typedef {object} Page
 * @property {any} cursor Where it begins; null for the first.
 * @property {HTMLElement} element
 * @property {boolean} isNear Whether it is on the screen, or nearly.
 * @property {number} age When it was read, as a count of refreshes; -1 if it has to be read again.
 * @property {number} asked How many times it was read, or some of it: only the newest answer is drawn.
 * @property {boolean} isReading Whether it is being read as a whole.
 * @property {any[]} items
 */

import { button, fill, h } from "../dom.js";
import { complaint } from "./failure.js";

/** How far a page may be from the screen when it is read, as a part of the screen's height. */
const MARGIN = "50%";
/** Of so many lanes or more, whole pages are read. */
const MANY = 50;

/**
 * Build the list; call `restart` to fill it.
 *
 * @param {object} options
 * @param {(cursor: any) => Promise<{items: any[], next: any}>} options.read
 * @param {(ids: number[]) => Promise<any[]>} options.readSome Read these lanes alone.
 * @param {(items: any[], before: any) => Node[]} options.draw Draw a page; `before` is the last item of the page before it, if any.
 * @param {(hadFocus: boolean) => void} options.drawn Called after a page was drawn, with whether the focus was in it.
 * @param {() => Node} options.nothing Shown in place of an empty list.
 * @param {AbortSignal} signal
 */
export function lanePages({ read, readSome, draw, drawn, nothing }, signal) {
  const element = h("div", {});
  /** @type {Page[]} */
  let pages = [];
  let refreshes = 0;
  let isWhole = false;
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
    const page = { cursor, element: h("ul", { class: "lanes", "aria-label": "Routines" }, h("li", { class: "quiet loading" }, "Loading…")), isNear: false, age: -1, asked: 0, isReading: false, items: [] };
    observer.observe(page.element);
    return page;
  }

  /** Begin to read a page, or some of it. Returns a function that says whether this is still the newest reading. @param {Page} page */
  function begin(page) {
    page.asked += 1;
    const [refresh, asked] = [refreshes, page.asked];
    return () => refresh === refreshes && asked === page.asked && pages.includes(page);
  }

  /** Read a page and draw it. @param {Page} page */
  async function load(page) {
    const isNewest = begin(page);
    Object.assign(page, { age: refreshes, isReading: true });
    const { items, next } = await read(page.cursor);
    if (!isNewest()) return;
    page.isReading = false;
    show(page, items);
    const index = pages.indexOf(page);
    if (next === null) isWhole = true;
    if (!index && !items.length) return drop(0, nothing());
    if (next === null) drop(index + 1);
    else if (!pages[index + 1]) append(next);
    else if (pages[index + 1].cursor !== next) Object.assign(pages[index + 1], { cursor: next, age: -1 });
  }

  /** @param {Page} page @param {any[]} items */
  function show(page, items) {
    page.items = items;
    const hadFocus = page.element.contains(document.activeElement);
    fill(page.element, draw(items, pages[pages.indexOf(page) - 1]?.items.at(-1)));
    drawn(hadFocus);
  }

  function append(cursor) {
    const page = pageAt(cursor);
    pages.push(page);
    element.append(page.element);
    isWhole = false;
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

  /** Read lanes again: those near the screen at once, the rest when they come near. @param {Set<number>} ids */
  async function take(ids) {
    if (!ids.size) return;
    const isStale = ({ routine_id: id }) => ids.has(id);
    // What is being read may be from before the change.
    const stale = pages.filter(({ items, isReading }) => isReading || items.some(isStale));
    for (const page of stale) if (!page.isNear) page.age = -1;
    const near = stale.filter(({ isNear }) => isNear);
    const some = near.flatMap(({ items }) => items.filter(isStale).map(({ routine_id: id }) => id));
    const isMany = some.length >= MANY;
    await Promise.all([
      ...near.filter(({ isReading }) => isReading || isMany).map(load),
      isMany || replace(near.filter(({ isReading }) => !isReading), some)]);
  }

  /** Read these lanes again, which are in these pages. @param {Page[]} near @param {number[]} ids */
  async function replace(near, ids) {
    if (!near.length) return;
    const begun = near.map((page) => ({ page, isNewest: begin(page) }));
    const fresh = new Map((await readSome(ids)).map((item) => [item.routine_id, item]));
    for (const { page, isNewest } of begun) if (isNewest()) show(page, page.items.map((item) => fresh.get(item.routine_id) ?? item));
  }

  return {
    element, restart, refresh, take,
    /** Draw again the pages near the screen that have a matching item, except the page with the focus. @param {(item: any) => boolean} isSo */
    redraw(isSo) {
      for (const page of pages) if (page.isNear && page.items.some(isSo) && !page.element.contains(document.activeElement)) show(page, page.items);
    },
    /** Return all items that were read. */
    items: () => pages.flatMap(({ items }) => items),
    /** Return whether these are all items that there are. */
    isWhole: () => isWhole,
  };
}
