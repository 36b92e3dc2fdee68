/**
 * Show all routines: did everything run, and if not, what needs attention.
 */

import { pause } from "../api.js";
import { address, button, empty, fill, h, link, title } from "../dom.js";
import { Fleet, PAGE } from "../fleet.js";
import { bulk } from "../components/bulk.js";
import { followRoutines } from "../following.js";
import { isDisabled } from "../components/failure.js";
import { filterOf, filters } from "../components/filters.js";
import { row } from "../components/routine-row.js";
import { nothing, summary } from "../components/summary.js";
import { legend, SLOTS } from "../components/strip.js";
import { Strips } from "../components/strips.js";
import { sinceOf, today } from "../components/today.js";
import { views } from "../components/view-links.js";
import { spanOf } from "../report.js";
import { note } from "../router.js";
import { Selection } from "../selection.js";
import { at } from "../time.js";
import { count } from "../words.js";

const ROWS = 50;
/** What is in a row beside the routine. Readers of the screen hear it from the row itself. */
const HEADS = ["When it runs", `Last ${SLOTS} slots`, "Last outcome", "Next slot"];
/** How long until the service is asked again what has changed: of a collection of up to five pages, and in a tab in the background. */
const REFRESH_MILLISECONDS = 10_000;
const BACKGROUND_MILLISECONDS = 60_000;
const QUICK_PAGES = 5;
/** The numbers of the band are read again at most so many requests later, and all routines after so many: a run becomes slow without a change. */
const BAND_EVERY = 3;
const ALL_EVERY = 60;

/** Build the page. @param {import("../main.js").Context} context */
export async function overview(context) {
  try {
    const feed = followRoutines(context.session, context.signal);
    await feed.begin();
    // Back shows at once what was there, and then reads it again.
    const fleet = (context.kept && context.session.fleet) ?? await firstPage(context);
    return { name: "", body: page(context, fleet, feed) };
  } catch (error) {
    if (isDisabled(error)) return { name: "Routines are disabled", body: disabled() };
    throw error;
  }
}

async function firstPage({ session, signal }) {
  const fleet = new Fleet(session, signal);
  await fleet.more();
  return fleet;
}

function disabled() {
  return h("div", {}, title("Routines are disabled."), empty("ENABLE_ROUTINES is not set",
    "Start the API with ", h("code", {}, "ENABLE_ROUTINES=true"), " to use routines. ",
    link(["tasks"], {}, "Tasks and their runs"), " are available without it."));
}

function page(context, fleet, feed) {
  let shown = context.kept?.shown ?? ROWS;
  const selection = context.kept?.selection ?? new Selection();
  let filter = { ...filterOf(context.query), ...sinceOf(context.query) };
  let current = fleet;
  /** How many refreshes have begun: only the newest is shown. */
  let asked = 0;
  const strips = new Strips(context.session, context.signal);
  let isBandStale = false;
  const head = h("div", { class: "summary" });
  const asOf = h("span", {});
  const list = h("ul", { class: "rows", "aria-label": "Routines", onseen: () => current.judge() && draw() });
  const foot = h("div", { class: "foot" });
  const controls = filters(filter, narrow);
  const band = today(context, filter, narrow);
  const saved = views(context.session.collection, context.say);
  const chosen = bulk(context, list, selection, {
    entries: () => current.entries, from: () => spanOf({ since: filter.since }).from, refresh: () => refresh().catch(failed) });

  /** @param {Record<string, string>} changed */
  function narrow(changed) {
    filter = { ...filter, ...changed };
    shown = ROWS;
    note(address([], filter));
    draw();
  }

  function draw() {
    fill(head, summary(current), h("p", { class: "as-of quiet" }, asOf,
      button("Refresh", () => refresh().catch(failed), { class: "plain", id: "refresh" })));
    dated();
    context.tell(current.unseen());
    controls.offer(current.tasks(), current.tally());
    const found = current.find(filter, band.has);
    const rows = found.slice(0, shown);
    fill(list, rows.map((entry) => row(entry, strips.of(entry.routine.id), chosen.box(entry.routine))));
    if (current.isWhole) selection.keepOnly(current.entries.map(idOf));
    chosen.draw({ shown: rows.map(idOf), fitting: found.map(idOf), isWhole: current.isWhole && band.isKnown() });
    saved.draw(filter);
    fill(foot, found.length ? below(found, rows) : nothing(current, filter));
    strips.watch(list, rows.map(({ routine }) => routine));
  }

  /** Say when the routines were read, whenever they are drawn. */
  function dated() {
    fill(asOf, "As of ", at(new Date(current.readAt).toISOString()), " ");
  }

  function below(found, rows) {
    return [
      h("p", { class: "quiet" }, rows.length < found.length ? `${count(rows.length, "routine")} of ${found.length.toLocaleString("en")}` : count(found.length, "routine"),
        current.isWhole ? "" : " so far, still loading"),
      rows.length < found.length && button(`Show ${Math.min(ROWS, found.length - rows.length)} more`, () => {
        shown += ROWS;
        draw();
      }, { id: "more" }),
      legend(),
    ];
  }

  /** Read everything again. */
  const refresh = () => feed.next(readAll);

  async function readAll() {
    asked += 1;
    const mine = asked;
    const fresh = await firstPage(context);
    while (!fresh.isWhole) await fresh.more();
    if (mine !== asked) return;
    strips.spoil();
    const isSame = JSON.stringify(fresh.entries) === JSON.stringify(current.entries);
    current = fresh;
    context.session.fleet = fresh;
    const isNarrowed = await readBand() && filter.of;
    if (isSame && !isNarrowed) dated();
    else draw();
  }

  /** Take over what has changed. */
  async function take(changes, times) {
    if (!changes.is_whole || times % ALL_EVERY === 0) return readAll();
    const mine = asked;
    const hasChanged = changes.routines.length + changes.deleted.length > 0;
    if (hasChanged) {
      await current.take(changes);
      if (mine !== asked) return;
      strips.spoil(changes.routines.map(({ id }) => id));
      isBandStale = true;
    }
    current.readAt = Date.parse(changes.as_of);
    const isNarrowed = isBandStale && times % BAND_EVERY === 0 && await readBand() && filter.of;
    if (current.judge() || hasChanged || isNarrowed) draw();
    else dated();
  }

  /** Read the numbers of the band. */
  async function readBand() {
    isBandStale = false;
    return band.load();
  }

  function failed(error) {
    if (!context.signal.aborted) context.say(`Refresh failed: ${error.message}`);
  }

  async function follow() {
    if (context.kept) await refresh().catch(failed);
    while (!current.isWhole) {
      await current.more();
      draw();
    }
    for (let times = 1; ; times += 1) {
      const part = Math.max(1, Math.ceil(current.entries.length / (QUICK_PAGES * PAGE)));
      await pause(document.visibilityState === "visible" ? REFRESH_MILLISECONDS * part : BACKGROUND_MILLISECONDS * part, context.signal);
      await feed.next((changes) => take(changes, times)).catch(failed);
    }
  }

  context.session.fleet = fleet;
  context.keep(() => ({ shown, selection }));
  draw();
  if (fleet.entries.length) band.load().then((isRead) => isRead && filter.of && draw());
  follow().catch((error) => {
    if (!context.signal.aborted) context.say(`Some routines could not be loaded: ${error.message}`);
  });
  return h("div", { class: "overview" }, head,
    fleet.entries.length > 0 && [band.element, controls.element, saved.element, chosen.panel, h("div", { class: "list-head" }, chosen.head, HEADS.map((text) => h("span", { "aria-hidden": "true" }, text)))], list, chosen.bar, foot);
}

/** @param {import("../fleet.js").Entry} entry */
function idOf({ routine }) {
  return routine.id;
}
