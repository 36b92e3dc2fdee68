/**
 * Show the slots of a routine that never ran, and those whose run failed, one by one.
 */

import { address, empty, h, link, title } from "../dom.js";
import { cause } from "../components/cause.js";
import { pages } from "../components/pages.js";
import { badge } from "../components/strip.js";
import { timeOf } from "../report.js";
import { at } from "../time.js";
import { KINDS, skipSentence } from "../words.js";

const PAGE = 100;
const REASONS = ["failed", "missed", "failed_to_start", "overlap", "coalesced", "backoff", "paused", "calendar", "outside_hours"];

/** Build the page. @param {import("../main.js").Context} context */
export async function gaps(context) {
  const { session: { api, collection }, params: { task, name }, query, signal } = context;
  const [from, to] = [timeOf(query.from), timeOf(query.to)];
  const path = ["routines", collection, task, name, "gaps"];
  const reason = h("select", { id: "reason", onchange: () => list.load() },
    h("option", { value: "" }, "For any reason"), REASONS.map((each) => h("option", { value: each }, KINDS[each])));

  async function read(cursor) {
    // Failed ones are among them only if asked for, and are no reason to skip a slot.
    const only = reason.value === "failed" ? "" : reason.value;
    const page = await api.page(path, { from, to, reason: only, include: only ? "" : "failed", limit: PAGE, cursor }, signal);
    return { items: reason.value === "failed" ? page.items.filter((gap) => gap.reason === "failed") : page.items, next: page.cursor };
  }

  const list = pages({ kind: "ledger", read, row: (gap) => row(gap, task), nothing, more: "Later gaps" }, signal);
  await list.load();
  const body = h("div", {},
    h("p", { class: "crumbs" }, link(["tasks", task], {}, task), " / ", link(["routines", task, name], {}, name), " / gaps"),
    h("div", { class: "headline" }, title("Gaps of ", name)),
    h("p", { class: "lede" }, "Slots that never ran, and why, and those whose run failed: ",
      from && to ? ["from ", at(from), " to ", at(to), " UTC."] : "of the last 30 days.",
      from && to && [" ", h("a", { href: address(["report"], { from, to }) }, "Back to the report")]),
    h("div", { class: "filters small" }, h("label", { class: "unseen", for: "reason" }, "Reason"), reason),
    list.element);
  return { name: `Gaps of ${name}`, body };
}

const nothing = () => empty("No gaps", "Every slot of this time ran.");

function row(gap, task) {
  return h("li", {},
    h("div", { class: "slot" }, at(gap.scheduled_for)),
    h("div", {}, badge(gap.reason)),
    h("div", { class: "story" }, story(gap, task)));
}

function story(gap, task) {
  const run = gap.trajectory_id ?? gap.blocking_trajectory_id;
  const linked = run && link(["runs", task, run], {}, `Run ${run}`);
  if (gap.reason === "failed") return [linked, gap.detail && cause(gap.detail)];
  return [skipSentence(gap), linked && [": ", linked], ".", !gap.recorded_at && " The pause goes on."];
}
