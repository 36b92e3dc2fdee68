/**
 * Show a routine: its health, what happened in its slots, what comes next, and why. The page follows the routine while it is open.
 */

import { pause, Problem } from "../api.js";
import { address, fill, h, link, section, title } from "../dom.js";
import { cause } from "../components/cause.js";
import { deliveries } from "../components/deliveries.js";
import { ledger } from "../components/ledger.js";
import { pauseNotice } from "../components/pause.js";
import { revisions } from "../components/revisions.js";
import { routineActions } from "../components/routine-actions.js";
import { routineDetails } from "../components/routine-details.js";
import { runs } from "../components/runs.js";
import { badge, SLOTS, strip } from "../components/strip.js";
import { why } from "../components/why.js";
import { latest } from "../fleet.js";
import { followRoutines } from "../following.js";
import { healthOf } from "../health.js";
import { timeOf } from "../report.js";
import { now, when } from "../time.js";
import { cadenceWords } from "../words.js";

const COMING = 5;
/** Where the list of webhooks is among the lists of the page, if it has one. */
const WEBHOOKS = 3;
const REFRESH_MILLISECONDS = 10_000;
/** Webhooks are read again after so many requests, and everything after so many: both change without a change of the routine. */
const WEBHOOKS_EVERY = 3;
const ALL_EVERY = 30;

/**
 * @typedef {object} Seen What the service says of the routine.
 * @property {any} found
 * @property {any} recent Its latest outcomes.
 * @property {string[]} slots Its coming slots.
 */

/** Build the page. @param {import("../main.js").Context} context */
export async function routine(context) {
  const { session: { collection, routines }, params: { task, name }, query, signal } = context;
  /** The slot that the address names. */
  const slot = timeOf(query.slot) && new Date(query.slot).toISOString();
  const path = ["routines", collection, task, name];
  const seen = await look(context, path);
  const { found } = seen;
  routines.set(found.id, found.name);
  const lists = [
    ledger(context, found, slot), runs(context, path, task), revisions(context, path, address(["routines", task, name, "edit"])),
    ...found.webhook_url ? [deliveries(context, path, null)] : [],
  ];
  const [slots, started] = lists;
  await Promise.all([slots.load(), started.load()]);
  const shown = page(context, seen, lists, path, slot);
  follow(context, path, seen, shown, lists).catch((error) => {
    if (!signal.aborted) context.say(`No longer following this routine: ${error.message}`);
  });
  return { name, body: shown.element };
}

/** @returns {Promise<Seen>} */
async function look({ session, signal }, path) {
  const found = await session.api.get(path, {}, signal);
  const [recents, coming] = await Promise.all([
    latest(session, [found.id], SLOTS, signal), session.api.get([...path, "next"], { count: COMING }, signal)]);
  return { found, recent: recents.get(found.id), slots: coming.slots };
}

/** Read the routine again whenever something of it has changed, while the page is visible, and draw what is new. */
async function follow(context, path, first, shown, lists) {
  const feed = followRoutines(context.session, context.signal, { routine: first.found.id });
  await feed.begin();
  let last = first;
  /** Whether there may be something that is not drawn: at first what has changed before the feed began. */
  let isBehind = true;

  async function take({ is_whole: isWhole, routines, deleted }, times) {
    if (deleted.length) return context.reload();
    if (!isBehind && isWhole && !routines.length && times % ALL_EVERY) {
      if (times % WEBHOOKS_EVERY === 0) await lists.at(WEBHOOKS)?.refresh();
      return;
    }
    const seen = await look(context, path);
    await Promise.all(lists.map((list) => list.refresh()));
    isBehind = shown.isBusy();
    if (isBehind || JSON.stringify(seen) === JSON.stringify(last)) return;
    shown.draw(seen);
    last = seen;
  }

  for (let times = 1; ; times += 1) {
    await pause(REFRESH_MILLISECONDS, context.signal);
    if (document.visibilityState !== "visible" || shown.isBusy()) continue;
    try {
      await feed.next((changes) => take(changes, times));
    } catch (error) {
      if (context.signal.aborted) return;
      if (error instanceof Problem && error.status === 404) return context.reload();
      context.say(`Refresh failed: ${error.message}`);
    }
  }
}

function page(context, seen, [slots, started, changed, sent], path, slot) {
  const trouble = h("div", {});
  const does = routineActions(context, path, trouble);
  const parts = { actions: h("div", { class: "actions" }), lede: h("p", { class: "lede" }), notices: h("div", { class: "notices" }), next: h("div", {}), details: h("div", {}) };

  function draw({ found, recent, slots: coming }) {
    const health = healthOf(found, recent);
    fill(parts.actions, does.buttons(found));
    fill(parts.lede, cadenceWords(found.cadence), state(found, health, recent));
    fill(parts.notices, notices(found, health));
    fill(parts.next, next(found, coming));
    fill(parts.details, routineDetails(found));
  }

  draw(seen);
  const { found, recent } = seen;
  const element = h("div", { class: "routine" },
    h("p", { class: "crumbs" }, link(["tasks", found.task_name], {}, found.task_name), " / routine"),
    h("div", { class: "headline" }, title(found.name), parts.actions),
    parts.lede,
    trouble,
    parts.notices,
    h("div", { class: "columns" },
      h("div", {},
        section("Ledger", {}, h("p", { class: "hint" }, "Every slot has one outcome: a run, or the reason why it did not run. ",
          link(["routines", found.task_name, found.name, "gaps"], {}, "Slots that did not run"), " can be filled."), slots.element),
        section("Runs", {}, started.element),
        sent && section("Webhooks", {}, sent.element),
        section("Revisions", { id: "revisions", tabindex: "-1" },
          h("p", { class: "hint" }, "Who changed this routine, and what. Any revision can be brought back."), changed.element)),
      h("aside", {},
        section("Why?", { class: "card" }, why(context, path, found.task_name, slot ?? newestSlot(recent), slot !== null)),
        section("Next slots", { class: "card" }, parts.next,
          h("p", {}, h("a", { href: address(["feeds"], { task: found.task_name, routine: found.name }) }, "Subscribe in a calendar"))),
        section("Details", { class: "card" }, parts.details))));
  return { element, draw, isBusy: does.isBusy };
}

/** Return the newest slot that has its outcome, which is the one that people ask about; now if there is none. */
function newestSlot(recent) {
  const slot = recent?.outcomes.find((outcome) => outcome.scheduled_for);
  return slot?.last_scheduled_for ?? new Date(now()).toISOString();
}

function state(found, { kind, words }, recent) {
  return h("span", { class: "state" }, kind ? badge(kind, words) : h("span", { class: "quiet" }, words), strip(recent?.outcomes ?? [], found));
}

function notices(found, health) {
  return [
    health.causes.map((told) => cause(told, "notice bad")),
    pauseNotice(found),
    ...(found.warnings ?? []).map((warning) => h("p", { class: "notice" }, warning)),
  ];
}

function next(found, slots) {
  if (slots.length) return h("ol", { class: "times" }, slots.map((slot) => h("li", {}, when(slot))));
  return h("p", { class: "quiet" }, found.paused ? "None while it is paused." : found.cadence.type === "manual" ? "None: it runs only when someone starts it." : "None.");
}
