/**
 * Build a list that is loaded page by page. Only the newest request is shown, so a late answer cannot replace that to a newer filter.
 */

import { button, fill, focusIn, h } from "../dom.js";
import { complaint } from "./failure.js";

/**
 * Build the list; call `load` to fill it.
 *
 * @param {object} options
 * @param {string} options.kind The class of the list.
 * @param {(from: any) => Promise<{items: any[], next: any}>} options.read Read a page; `from` is null for the first.
 * @param {(item: any) => Node} options.row
 * @param {() => Node} options.nothing Shown in place of an empty list.
 * @param {string} options.more The text of the button for the next page.
 * @param {AbortSignal} signal
 */
export function pages({ kind, read, row, nothing, more }, signal) {
  const rows = h("ol", { class: kind });
  const foot = h("div", {});
  let asked = 0;
  /** What the first page was when it was drawn, so that it is drawn again only if it has changed. */
  let shown = "";
  let isFirst = true;

  /** @param {any} [from] The next page of what is shown; the first if it is left out. */
  async function load(from = null) {
    asked += 1;
    const mine = asked;
    try {
      const page = await read(from);
      if (mine === asked) show(page, from);
    } catch (error) {
      if (mine !== asked || signal.aborted) return;
      shown = "";
      fill(foot, complaint(error), button("Try again", () => load(from)));
    }
  }

  function show({ items, next }, from) {
    isFirst = from === null;
    const fresh = JSON.stringify(items);
    if (isFirst && fresh === shown) return;
    shown = fresh;
    const added = items.map(row);
    if (isFirst) fill(rows, added);
    else rows.append(...added);
    const hadFocus = foot.contains(document.activeElement);
    fill(foot, !rows.children.length && !next && nothing(), next && button(more, () => load(next), { id: `more-${kind}` }));
    // On the last page the button is gone.
    if (hadFocus && !foot.contains(document.activeElement) && added[0]) focusIn(added[0]);
  }

  return {
    element: h("div", {}, rows, foot),
    load,
    /** Read the first page again, unless the user has gone on to the next. */
    async refresh() {
      if (isFirst) await load();
    },
  };
}
