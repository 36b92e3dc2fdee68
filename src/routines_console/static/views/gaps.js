/**
 * Show the slots of a routine that never ran, and those whose run failed, one by one; fill them, and show how far that has come.
 */

import { pause } from "../api.js";
import { address, empty, h, link, section, title } from "../dom.js";
import { backfill } from "../components/backfill.js";
import { backfills } from "../components/backfills.js";
import { cause } from "../components/cause.js";
import { pages } from "../components/pages.js";
import { badge } from "../components/strip.js";
import { DAY_MILLISECONDS, stamp } from "../load.js";
import { timeOf } from "../report.js";
import { at, now, written } from "../time.js";
import { KINDS, REPROCESS, skipSentence } from "../words.js";

const PAGE = 100;
const DAYS = 30;
const MINUTE_MILLISECONDS = 60_000;
/** How often the page is read again while a backfill goes on. */
const REFRESH_MILLISECONDS = 3000;
const REASONS = ["failed", "missed", "failed_to_start", "overlap", "coalesced", "backoff", "paused", "calendar", "outside_hours"];
/** Slots that were left out on purpose: no backfill fills them. */
const EXCLUDED = ["calendar", "outside_hours"];

/** Build the page. @param {import("../main.js").Context} context */
export async function gaps(context) {
  const { session: { api, collection }, params: { task, name }, signal } = context;
  const path = ["routines", collection, task, name];
  const span = spanOf(context.query);
  const found = await api.get(path, {}, signal);
  const list = gapList(context, [...path, "gaps"], span);
  const fills = backfills(context, [...path, "backfills"]);
  await Promise.all([list.load(), fills.load()]);

  let isFollowing = false;
  /** Read the lists again and again while a backfill goes on and the page is visible. */
  async function follow() {
    if (isFollowing) return;
    isFollowing = true;
    try {
      while (fills.isActive()) {
        await pause(REFRESH_MILLISECONDS, signal);
        if (document.visibilityState === "visible") await Promise.all([fills.refresh(), list.refresh()]);
      }
    } catch (error) {
      if (!signal.aborted) context.say(`No longer following these gaps: ${error.message}`);
    } finally {
      isFollowing = false;
    }
  }

  async function started(made) {
    await fills.load();
    fills.show(made.id);
    follow();
  }

  follow();
  const body = h("div", { class: "gaps" },
    h("p", { class: "crumbs" }, link(["tasks", task], {}, task), " / ", link(["routines", task, name], {}, name), " / gaps"),
    h("div", { class: "headline" }, title("Gaps of ", name)),
    lede(context.params, span),
    found.cadence.type === "manual" ? h("p", { class: "quiet" }, "The routine is manual: it has no slots to fill.")
      : backfill(context, [...path, "backfills"], { ...beginning(span, list.oldest()), isPaused: found.paused }, started),
    fills.element,
    section("Gaps", {}, list.element));
  return { name: `Gaps of ${name}`, body };
}

/**
 * Return what an address names: a time, or none, and with `fill` that this time is to be filled, and how.
 *
 * @param {Record<string, string>} query
 */
function spanOf({ from, to, fill }) {
  const isSpan = timeOf(from) && timeOf(to);
  return { from: isSpan ? from : null, to: isSpan ? to : null, what: Object.hasOwn(REPROCESS, fill ?? "") ? fill : null };
}

/** Return what the form begins with: the time that is shown, or the gaps that are, since most slots before them may be older than the routine. */
function beginning({ from, to, what }, oldest) {
  const minute = now() - now() % MINUTE_MILLISECONDS;
  return {
    from: from ?? oldest ?? stamp(minute - DAYS * DAY_MILLISECONDS), to: to ?? stamp(minute),
    what: what ?? "missing", isOpen: what !== null,
  };
}

function lede({ task, name }, { from, to, what }) {
  const back = what ? link(["routines", task, name, "gaps"], {}, "All gaps") : h("a", { href: address(["report"], { from, to }) }, "Back to the report");
  return h("p", { class: "lede" }, "Slots that never ran, and why, and those whose run failed: ",
    from ? ["from ", at(from), " to ", at(to), ". ", back] : `of the last ${DAYS} days.`);
}

function gapList({ session: { api }, params: { task, name }, signal }, path, { from, to }) {
  const reason = h("select", { id: "reason", onchange: () => list.load() },
    h("option", { value: "" }, "For any reason"), REASONS.map((each) => h("option", { value: each }, KINDS[each])));

  /** The oldest gap when the list was last read from its beginning. @type {string | undefined} */
  let oldest;

  async function read(cursor) {
    // Failed ones are among them only if asked for, and are no reason to skip a slot.
    const only = reason.value === "failed" ? "" : reason.value;
    const page = await api.page(path, { from, to, reason: only, include: only ? "" : "failed", limit: PAGE, cursor }, signal);
    if (cursor === null) oldest = page.items[0]?.scheduled_for;
    return { items: reason.value === "failed" ? page.items.filter((gap) => gap.reason === "failed") : page.items, next: page.cursor };
  }

  const list = pages({ kind: "ledger", read, row: (gap) => row(gap, task, name), nothing, more: "Later gaps" }, signal);
  list.element.prepend(h("div", { class: "filters small" }, h("label", { class: "unseen", for: "reason" }, "Reason"), reason));
  return { ...list, oldest: () => oldest };
}

const nothing = () => empty("No gaps", "Every slot of this time ran, or has been filled since.");

function row(gap, task, name) {
  return h("li", {},
    h("div", { class: "slot" }, at(gap.scheduled_for)),
    h("div", {}, badge(gap.reason)),
    h("div", { class: "story" }, story(gap, task)),
    !EXCLUDED.includes(gap.reason) && h("div", { class: "end" }, h("a", { href: filling(gap, task, name) },
      "Run this slot", h("span", { class: "unseen" }, ` of ${written(gap.scheduled_for)}`))));
}

/** Return the address of this page for one slot: no other one comes within a minute. */
function filling({ scheduled_for: slot, reason }, task, name) {
  const to = stamp(Date.parse(slot) + MINUTE_MILLISECONDS);
  return address(["routines", task, name, "gaps"], { from: slot, to, fill: reason === "failed" ? "failed" : "missing" });
}

function story(gap, task) {
  const run = gap.trajectory_id ?? gap.blocking_trajectory_id;
  const linked = run && link(["runs", task, run], {}, `Run ${run}`);
  if (gap.reason === "failed") return [linked, gap.detail && cause(gap.detail)];
  return [skipSentence(gap), linked && [": ", linked], ".", !gap.recorded_at && " The pause goes on."];
}
