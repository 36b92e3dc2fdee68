/**
 * This morning: did everything run, and if not, what needs a look.
 */

import { pause } from "../api.js";
import { address, button, empty, fill, h, link, title } from "../dom.js";
import { Fleet, latest } from "../fleet.js";
import { isSwitchedOff } from "../components/failure.js";
import { filters } from "../components/filters.js";
import { row } from "../components/routine-row.js";
import { legend, SLOTS, strip } from "../components/strip.js";
import { note } from "../router.js";
import { ago, now, utc } from "../time.js";
import { count, listed } from "../words.js";

const ROWS = 50;
const REFRESH_MILLISECONDS = 30_000;
/** Up to so many routines are all read again by themselves. */
const REFRESHED = 1000;

/** @param {import("../main.js").Context} context */
export async function overview(context) {
  try {
    const fleet = await firstPage(context);
    return { name: "Overview", body: page(context, fleet) };
  } catch (error) {
    if (isSwitchedOff(error)) return { name: "Routines are switched off", body: switchedOff() };
    throw error;
  }
}

async function firstPage({ session, signal }) {
  const fleet = new Fleet(session, signal);
  await fleet.more();
  return fleet;
}

function switchedOff() {
  return h("div", {}, title("Routines are switched off here."), empty("The API runs without ENABLE_ROUTINES",
    "Every path of routines answers 404. Start the API with ", h("code", {}, "ENABLE_ROUTINES=true"),
    ", and they are here. ", link(["tasks"], {}, "Tasks and their runs"), " are shown all the same."));
}

function page(context, fleet) {
  let shown = ROWS;
  let filter = { ...context.query };
  let current = fleet;
  /** @type {Map<number, any>} The latest outcomes of what was shown, by routine. */
  const strips = new Map();
  /** Those that are to be asked for again. */
  let stale = new Set();
  const head = h("div", { class: "summary" });
  const asOf = h("span", {});
  const list = h("ul", { class: "rows", "aria-label": "Routines" });
  const foot = h("div", { class: "foot" });
  const controls = filters(filter, (changed) => {
    filter = changed;
    shown = ROWS;
    note(address([], filter));
    draw();
  });

  function draw() {
    fill(head, summary(current), h("p", { class: "as-of quiet" }, asOf,
      button("Refresh", refresh, { class: "plain", id: "refresh" })));
    dated();
    controls.offer(current.tasks(), current.tally());
    const found = current.find(filter);
    const rows = found.slice(0, shown);
    fill(list, rows.map((entry) => row(entry, strips.get(entry.routine.id))));
    fill(foot, found.length ? below(found, rows) : nothing(current, filter));
    fillStrips(rows.map(({ routine }) => routine.id));
  }

  /** The strips of the rows that are shown, in one request. */
  async function fillStrips(shownIds) {
    const ids = shownIds.filter((id) => stale.has(id) || !strips.has(id));
    if (!ids.length) return;
    ids.forEach((id) => stale.delete(id));
    for (const [id, recent] of await latest(context.session, ids, SLOTS, context.signal)) {
      strips.set(id, recent);
      const place = list.querySelector(`[data-strip="${Number(id)}"]`);
      if (place) fill(place, strip(recent.outcomes));
    }
  }

  function dated() {
    fill(asOf, `As of ${utc(new Date(now()).toISOString())} UTC `);
  }

  function below(found, rows) {
    return [
      h("p", { class: "quiet" }, rows.length < found.length ? `${count(rows.length, "routine")} of ${found.length.toLocaleString("en")}` : count(found.length, "routine"),
        current.isWhole ? "" : " so far: more are being read"),
      rows.length < found.length && button(`Show ${Math.min(ROWS, found.length - rows.length)} more`, () => {
        shown += ROWS;
        draw();
      }, { id: "more" }),
      legend(),
    ];
  }

  async function refresh() {
    const fresh = await firstPage(context);
    while (!fresh.isWhole) await fresh.more();
    stale = new Set(strips.keys());
    const isSame = JSON.stringify(fresh.entries) === JSON.stringify(current.entries);
    current = fresh;
    if (isSame) dated();
    else draw();
  }

  async function follow() {
    while (!current.isWhole) {
      await current.more();
      draw();
    }
    for (;;) {
      await pause(REFRESH_MILLISECONDS, context.signal);
      if (document.visibilityState !== "visible" || current.entries.length > REFRESHED) continue;
      await refresh().catch((error) => {
        if (!context.signal.aborted) context.say(`Not refreshed: ${error.message}`);
      });
    }
  }

  draw();
  follow().catch((error) => {
    if (!context.signal.aborted) context.say(`Not all routines were read: ${error.message}`);
  });
  return h("div", { class: "overview" }, head, fleet.entries.length ? controls.element : null, list, foot);
}

function summary(fleet) {
  const tally = fleet.tally();
  const total = fleet.entries.length;
  const parts = [
    tally.well && `${tally.well.toLocaleString("en")} went well`,
    tally.attention && `${tally.attention.toLocaleString("en")} ${tally.attention === 1 ? "needs" : "need"} a look`,
    tally.running && `${tally.running.toLocaleString("en")} running`,
    tally.other && `${tally.other.toLocaleString("en")} skipped or cancelled`,
    tally.paused && `${tally.paused.toLocaleString("en")} paused`,
    tally.silent && `${tally.silent.toLocaleString("en")} not run yet`,
  ].filter(Boolean);
  const next = fleet.next();
  return [
    h("div", { class: "headline" }, title(headline(tally, total, fleet.isWhole)),
      link(["new"], { class: "button primary" }, "New routine")),
    total > 0 && h("p", { class: "lede" }, `${count(total, "routine")}${fleet.isWhole ? "" : " so far"}, by the last outcome of each: ${listed(parts)}.`,
      next && [" Next is ", link(["routines", next.routine.task_name, next.routine.name], {}, next.routine.name), " ", ago(next.routine.next_run_at), "."]),
  ];
}

function headline(tally, total, isWhole) {
  if (!total) return "Nothing is scheduled yet.";
  if (tally.attention) return tally.attention === 1 ? "One routine needs a look." : `${tally.attention.toLocaleString("en")} routines need a look.`;
  if (!isWhole) return "Nothing needs a look so far.";
  if (tally.other) return "Nothing failed.";
  if (tally.well) return "Everything ran.";
  if (tally.running) return "All is under way.";
  return tally.silent ? "Nothing has run yet." : "Everything is paused.";
}

function nothing(fleet, filter) {
  if (!fleet.entries.length) {
    return empty("No routine yet", "A routine runs a task again and again: every hour, every weekday at nine. ",
      link(["new"], {}, "Make the first one"), ", or look at the ", link(["tasks"], {}, "tasks"), " there are.");
  }
  if (!fleet.isWhole) return empty("None so far", "More routines are being read.");
  if (filter.state === "attention" && !filter.q && !filter.task) {
    return empty("Nothing needs a look", "No routine’s last outcome is a failure or a slot that was missed.");
  }
  return empty("No routine fits", "Take a word out of the search, or ", link([], {}, "show all"), ".");
}
