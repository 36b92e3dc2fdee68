/**
 * Make a group of links or buttons one stop of the Tab key: the arrow keys, Home and End move within it.
 */

/**
 * Watch the group. Its elements may be replaced later: `settle` then makes one of the new ones the stop.
 *
 * @param {HTMLElement} group
 * @param {string} selector
 * @returns {{settle: (stop?: Element | null) => void}}
 */
export function roving(group, selector) {
  /** @returns {HTMLElement[]} */
  const all = () => [...group.querySelectorAll(selector)];

  /** @param {Element | null} [stop] The first element if it is left out. */
  function settle(stop) {
    const items = all();
    const chosen = stop ?? items[0];
    for (const each of items) each.tabIndex = each === chosen ? 0 : -1;
  }

  group.addEventListener("focusin", ({ target }) => {
    const focused = target instanceof Element && target.closest(selector);
    if (focused) settle(focused);
  });
  group.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const items = all();
    const from = items.findIndex((each) => each === document.activeElement);
    const to = from < 0 ? undefined : items[target(items, from, event.key)];
    if (!to) return;
    event.preventDefault();
    to.focus();
  });
  settle();
  return { settle };
}

/** Return the index that a key leads to; -1 if it leads nowhere. */
function target(items, from, key) {
  const top = (each) => each.getBoundingClientRect().top;
  const columns = items.filter((each) => top(each) === top(items[0])).length;
  const begin = from - from % columns;
  switch (key) {
    case "ArrowLeft": return from - 1;
    case "ArrowRight": return from + 1;
    case "ArrowUp": return from - columns;
    case "ArrowDown": return from + columns;
    case "Home": return begin;
    case "End": return Math.min(begin + columns, items.length) - 1;
    default: return -1;
  }
}
