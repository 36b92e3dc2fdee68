/**
 * Show a lane for each routine along the time: what ran, what was skipped and what is to come, beside each other.
 */

import { pause } from "../api.js";
import { address, button, empty, fill, h, link, title } from "../dom.js";
import { axis, lines, nowPlace } from "../components/axis.js";
import { isDisabled } from "../components/failure.js";
import { goesOn, isBefore, lanesToRead } from "../components/lane-changes.js";
import { laneKeys } from "../components/lane-keys.js";
import { lanePages } from "../components/lane-pages.js";
import { lane, legend } from "../components/lanes.js";
import { followRoutines } from "../following.js";
import { stamp } from "../load.js";
import { bad } from "../report.js";
import { note } from "../router.js";
import { Stretch } from "../stretch.js";
import { fromTo, now, written } from "../time.js";

const PAGE = 50;
/** The service lists no more routines by their ids. */
const MOST_IDS = 500;
const MOST_ROUTINES = 10_000;
const REFRESH_MILLISECONDS = 10_000;
/** Which routines have trouble is read again at most so many requests later, and everything after so many. */
const TROUBLE_EVERY = 3;
const ALL_EVERY = 60;
const TYPING_MILLISECONDS = 200;
/** No name of a task or a routine has other characters. */
const PART_OF_NAME = /^[a-z0-9_/-]*$/;
const CHOICES = [["", "All routines"], ["trouble", "With trouble"]];
const HINT = "Arrow keys move between marks, + and − zoom, Enter opens.";
const NARROW = matchMedia("(max-width: 40rem)");

/** Build the page. @param {import("../main.js").Context} context */
export async function timeline(context) {
  const shown = page(context);
  try {
    await shown.begin();
  } catch (error) {
    if (isDisabled(error)) return { name: "Timeline", body: h("div", {}, title("Routines are disabled.")) };
    throw error;
  }
  return { name: "Timeline", body: shown.element };
}

function page(context) {
  const { session: { api, collection }, query, signal } = context;
  let stretch = Stretch.of(query);
  let filter = { q: query.q ?? "", only: query.only === "trouble" ? "trouble" : "" };
  let typed = 0;
  /** How many times it was read, or began to be: only the newest time is drawn. */
  let asked = 0;
  /** Whether what is shown is not what was to be shown last, because that is being read, or could not be read. */
  let isBehind = false;
  /** Whether other routines may have trouble than when that was read. */
  let isTroubleStale = false;
  /** Up to when changes are shown, in milliseconds. */
  let readAt = now();
  /** The ids of the routines to show; null: all. @type {Promise<number[] | null>} */
  let wanted = Promise.resolve(null);

  const heading = title();
  const lede = h("p", { class: "lede" });
  const asOf = h("span", {});
  const scale = h("div", {});
  const behind = h("div", { class: "lines", "aria-hidden": "true" });
  const told = h("p", { class: "readout quiet", "aria-hidden": "true" }, HINT);
  const feed = followRoutines(context.session, signal);
  const pages = lanePages({ read, readSome, draw, drawn: (hadFocus) => keys.settle(hadFocus), nothing }, signal);
  const chart = h("div", { class: "chart", onmouseover: pointed }, h("div", { class: "scale" }, told, scale), behind, pages.element);
  const keys = laneKeys(pages.element, tell);

  const part = () => filter.q.trim().toLowerCase();

  async function read(cursor) {
    const ids = await wanted;
    if (ids?.length === 0 || !PART_OF_NAME.test(part())) return { items: [], next: null };
    const given = { ...stretch.asked(NARROW.matches), q: part(), ids: ids?.join(","), limit: PAGE, cursor };
    const found = await api.page(["timeline", collection], given, signal);
    return { items: found.items.routines, next: found.cursor };
  }

  async function readSome(ids) {
    return (await api.get(["timeline", collection], { ...stretch.asked(NARROW.matches), ids: ids.join(","), limit: PAGE }, signal)).routines;
  }

  /** Return the ids of the routines of which a slot went wrong. */
  async function troubled() {
    const until = Math.min(stretch.end, now());
    if (until <= stretch.begin) return [];
    const report = await api.get(["report", collection], { from: stamp(stretch.begin), to: stamp(until), limit: MOST_ROUTINES }, signal);
    return report.routines.filter((line) => !line.deleted && bad(line)).map((line) => line.routine_id).slice(0, MOST_IDS);
  }

  /** Draw a page of lanes, with the name of each task above its first. */
  function draw(items, before) {
    return items.flatMap((found, index) => {
      const isFirst = found.task !== (items[index - 1] ?? before)?.task;
      return [isFirst && h("li", { class: "of-task" }, h("h2", {}, found.task)), lane(found, stretch, (time) => zoom(1, time))];
    });
  }

  function nothing() {
    if (filter.only) return empty("Nothing went wrong", "No slot of this time failed or was missed.");
    if (filter.q.trim()) return empty("No routines match", "Type another part of a name, or of its task.");
    return empty("No routines yet", link(["new"], {}, "Create the first one"), ".");
  }

  function drawFrame() {
    const words = `${fromTo(stamp(stretch.begin), stamp(stretch.end))}.`;
    fill(heading, stretch.isFollowing ? stretch.words : words);
    fill(lede, stretch.isFollowing ? words : "Now leads back to the present.");
    fill(asOf, `As of ${written(stamp(readAt))} `);
    fill(scale, axis(stretch, NARROW.matches));
    fill(behind, lines(stretch, NARROW.matches));
    chart.style.setProperty("--now", nowPlace(stretch));
  }

  /** Read the lanes and draw them, after the time or the clock has moved, or, with `isOther`, other lanes were chosen. */
  async function show(isOther = false) {
    asked += 1;
    const mine = asked;
    const begun = now();
    stretch = stretch.fresh();
    [isBehind, isTroubleStale] = [true, false];
    wanted = filter.only ? troubled() : Promise.resolve(null);
    await (isOther ? pages.restart() : pages.refresh());
    if (mine !== asked) return;
    [isBehind, readAt] = [false, begun];
    drawFrame();
  }

  /** Show another time, and name it in the address. @param {Stretch} other */
  function move(other) {
    stretch = other;
    noted();
    show(Boolean(filter.only)).catch(failed);
  }

  function zoom(by, anchor) {
    if (by > 0 ? stretch.isShortest : stretch.isLongest) return context.say(`This is the ${by > 0 ? "shortest" : "longest"} time.`);
    move(stretch.zoomed(by, anchor));
  }

  function noted() {
    note(address(["timeline"], { ...stretch.query, ...filter }));
  }

  async function narrow() {
    typed += 1;
    const mine = typed;
    await pause(TYPING_MILLISECONDS, signal);
    if (mine !== typed) return;
    filter = { q: search.value, only: form.querySelector("input[name=only]:checked").value };
    noted();
    show(true).catch(failed);
  }

  function failed(error) {
    if (!signal.aborted) context.say(`Refresh failed: ${error.message}`);
  }

  function pointed({ target }) {
    const mark = target instanceof Element && target.closest(".lane-mark");
    if (mark) tell(mark);
  }

  /** Say beside the times what a mark is; it is the mark's name too. */
  function tell(item) {
    fill(told, item.getAttribute("aria-label") ?? HINT);
  }

  /** Take over what has changed: read the lanes of these routines again, and all of them only where that is not enough. */
  async function take(changes, times) {
    const isDue = isTroubleStale && times % TROUBLE_EVERY === 0;
    if (isBehind || isDue || stretch.isBehind() || times % ALL_EVERY === 0) return show();
    const ids = lanesToRead(changes, pages.items(), isMissing);
    if (ids === null) return show();
    const mine = asked;
    await pages.take(ids);
    isTroubleStale ||= filter.only !== "" && changes.routines.length > 0;
    if (mine !== asked) return;
    pages.redraw(goesOn);
    readAt = Date.parse(changes.as_of);
    drawFrame();
  }

  /** Return whether a routine without a lane should have one among those that were read. */
  function isMissing(routine) {
    if (filter.only || !`${routine.task_name}/${routine.name}`.includes(part())) return false;
    const last = pages.items().at(-1);
    return pages.isWhole() || Boolean(last && isBefore(routine, last));
  }

  async function follow() {
    for (let times = 1; ; times += 1) {
      await pause(REFRESH_MILLISECONDS, signal);
      if (document.visibilityState === "visible") await feed.next((changes) => take(changes, times)).catch(failed);
    }
  }

  const search = h("input", { id: "search", type: "search", value: filter.q, placeholder: "Name or task", autocomplete: "off", oninput: narrow });
  const radios = CHOICES.map(([name, text]) => h("label", {},
    h("input", { type: "radio", name: "only", value: name, checked: name === filter.only, oninput: narrow }), h("span", {}, text)));
  const form = h("form", { class: "filters", role: "search", "aria-label": "Routines", onsubmit: (event) => event.preventDefault() },
    h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, "Routines"), radios),
    h("label", { class: "unseen", for: "search" }, "Search"), search);
  const moves = h("div", { class: "actions" },
    button("Earlier", () => move(stretch.shifted(-1)), { id: "earlier" }),
    button("Now", () => move(stretch.following()), { id: "to-now" }),
    button("Later", () => move(stretch.shifted(1)), { id: "later" }),
    button("Zoom out", () => zoom(-1, keys.time()), { id: "zoom-out" }),
    button("Zoom in", () => zoom(1, keys.time()), { id: "zoom-in" }));
  const element = h("div", {},
    h("div", { class: "headline" }, heading, moves), lede,
    h("p", { class: "as-of quiet" }, asOf, button("Refresh", () => show().catch(failed), { class: "plain", id: "refresh" })),
    form, chart, legend());

  return {
    element,
    async begin() {
      await feed.begin();
      await show(true);
      follow().catch(() => {});
    },
  };
}
