/**
 * Make all lanes one stop of the Tab key: the arrow keys move along a lane, and between lanes to what is nearest in time.
 */

const ITEMS = ".name, .lane-mark";

/**
 * Watch the lanes. They may be replaced later: `settle` then makes one of their items the stop again.
 *
 * @param {HTMLElement} lanes
 * @param {(item: HTMLElement) => void} told Called with each item that gets the focus.
 */
export function laneKeys(lanes, told) {
  /** What has, or last had, the focus: its routine and its time; null: nothing yet. @type {{routine: string, at: number, isName: boolean} | null} */
  let last = null;

  lanes.addEventListener("focusin", ({ target }) => {
    const item = target instanceof HTMLElement && target.matches(`.lane :is(${ITEMS})`) ? target : null;
    if (!item) return;
    last = { routine: laneOf(item)?.dataset.routine ?? "", at: timeOf(item), isName: item.matches(".name") };
    stop(item);
    told(item);
  });
  lanes.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const own = focused && laneOf(focused);
    const to = own && target(lanes, own, focused, event.key);
    if (!to) return;
    event.preventDefault();
    to.focus({ preventScroll: true });
    to.scrollIntoView({ block: "nearest" });
  });

  /** Make this item the stop. @param {HTMLElement} item */
  function stop(item) {
    for (const each of lanes.querySelectorAll("[tabindex='0']")) /** @type {HTMLElement} */ (each).tabIndex = -1;
    item.tabIndex = 0;
  }

  return {
    /** Make one item the stop, after lanes were replaced: the one that was it before, or what is nearest to it. @param {boolean} hadFocus */
    settle(hadFocus) {
      const own = last && /** @type {HTMLElement | null} */ (lanes.querySelector(`[data-routine="${Number(last.routine)}"]`));
      const again = own && last ? last.isName ? items(own)[0] : nearest(own, last.at) : null;
      const item = again ?? /** @type {HTMLElement | null} */ (lanes.querySelector(".lane .name"));
      if (!item) return;
      stop(item);
      if (hadFocus) item.focus({ preventScroll: true });
    },
    /** Return the time of the mark that has the focus, null if none has it. */
    time() {
      const focused = document.activeElement;
      return focused instanceof HTMLElement && lanes.contains(focused) && focused.matches(".lane-mark") ? timeOf(focused) : null;
    },
  };
}

/** Return the item that a key leads to. */
function target(lanes, own, focused, key) {
  const along = items(own);
  const index = along.indexOf(focused);
  switch (key) {
    case "ArrowLeft": return along[index - 1];
    case "ArrowRight": return along[index + 1];
    case "Home": return along[0];
    case "End": return along.at(-1);
    case "ArrowUp":
    case "ArrowDown": return across(lanes, own, focused, key === "ArrowUp" ? -1 : 1);
    default: return undefined;
  }
}

/** Return the item of the lane above or below: its name for a name; for a mark the nearest mark, of the next lane that has one. */
function across(lanes, own, focused, by) {
  const all = [...lanes.querySelectorAll(".lane")];
  for (let index = all.indexOf(own) + by; all[index]; index += by) {
    const found = focused.matches(".lane-mark") ? nearest(all[index], timeOf(focused), true) : items(all[index])[0];
    if (found) return found;
  }
  return undefined;
}

/** Return the mark of a lane that is nearest in time; of a lane without any its name, unless only marks will do. */
function nearest(lane, time, isMark = false) {
  const [name, ...marks] = items(lane);
  return marks.reduce((best, each) => !best || Math.abs(timeOf(each) - time) < Math.abs(timeOf(best) - time) ? each : best,
    /** @type {HTMLElement | null} */ (null)) ?? (isMark ? null : name);
}

/** @returns {HTMLElement[]} */
function items(lane) {
  return [...lane.querySelectorAll(ITEMS)];
}

function laneOf(item) {
  return /** @type {HTMLElement | null} */ (item.closest(".lane"));
}

function timeOf(item) {
  return Number(item.dataset.at);
}
