/**
 * Show a run: its steps, log, parameters and labels. The page follows the run until it ends.
 */

import { pause } from "../api.js";
import { button, facts, fill, h, link, section, title } from "../dom.js";
import { deliveries } from "../components/deliveries.js";
import { complaint } from "../components/failure.js";
import { json } from "../components/json.js";
import { labels } from "../components/labels.js";
import { log } from "../components/log.js";
import { badge } from "../components/strip.js";
import { timeline } from "../components/timeline.js";
import { at, duration, secondsBetween, utc, when } from "../time.js";

const FIRST_POLL_MILLISECONDS = 1000;
const LONGEST_POLL_MILLISECONDS = 5000;
const ENDINGS = { completed: "has completed", failed: "has failed", cancelled: "was cancelled", archived: "was archived" };
const TRIGGERS = { schedule: "Schedule", "run-now": "Run now", api: "API", retry: "Retry" };

/** Build the page. @param {import("../main.js").Context} context */
export async function run(context) {
  const { session: { api, collection }, params: { task, id }, signal } = context;
  const path = ["db", "trajectory", collection, task, id];
  const found = await api.get(path, {}, signal);
  const events = await api.get(["workflows-logs", found.workflow_id], {}, signal);
  const page = body(context, found, events);
  if (found.triggered_by_routine_id) routineOf(context, found.triggered_by_routine_id).then(page.belongsTo);
  follow(context, path, found, page).catch((error) => {
    if (!signal.aborted) context.say(`No longer following this run: ${error.message}`);
  });
  return { name: `Run ${found.trajectory_id}`, body: page.element };
}

/**
 * Return the name of the routine with this id; null if it was deleted. The API cannot look a routine up by id.
 *
 * @param {import("../main.js").Context} context
 * @param {number} id
 */
async function routineOf({ session: { api, collection, routines }, params: { task }, signal }, id) {
  if (routines.has(id)) return routines.get(id);
  let cursor = null;
  do {
    const page = await api.page(["routines", collection, task], { limit: 1000, cursor }, signal).catch(() => ({ items: [], cursor: null }));
    const found = page.items.find((each) => each.id === id);
    for (const each of page.items) routines.set(each.id, each.name);
    if (found) return found.name;
    cursor = page.cursor;
  } while (cursor);
  return null;
}

/** Poll the run while it is active and the page is visible. */
async function follow({ session: { api }, signal, say }, path, first, page) {
  let shown = first;
  let wait = FIRST_POLL_MILLISECONDS;
  while (!shown.ended_at) {
    await pause(wait, signal);
    if (document.visibilityState !== "visible") continue;
    const fresh = await api.get(path, {}, signal);
    const hasChanged = fresh.updated !== shown.updated || fresh.status !== shown.status;
    wait = hasChanged ? FIRST_POLL_MILLISECONDS : Math.min(wait * 1.5, LONGEST_POLL_MILLISECONDS);
    shown = fresh;
    if (hasChanged) page.draw(fresh, await api.get(["workflows-logs", fresh.workflow_id], {}, signal));
    else page.tick(fresh);
    if (fresh.ended_at) say(`Run ${fresh.trajectory_id} ${ENDINGS[fresh.status] ?? "has ended"}.`);
  }
}

function body(context, found, events) {
  const { task } = context.params;
  let shown = found;
  /** @type {string | null | undefined} The routine's name; undefined while it is being looked up. */
  let routine;
  const crumbs = h("p", { class: "crumbs" });
  const head = h("div", {});
  const lede = h("p", { class: "lede" });
  const steps = h("div", {});
  const happened = h("div", {});
  const about = h("div", {});
  /** @type {Set<string>} */
  const open = new Set();
  const webhooks = h("div", {});

  function draw(run, log_) {
    shown = run;
    fill(lede, progress(run));
    fill(head, header(context, run, lede));
    fill(steps, timeline(run, open));
    if (log_) fill(happened, log(log_.events));
    around(run);
  }

  /** Draw what names the routine, which may be known later than the run. */
  function around(run) {
    fill(crumbs, link(["tasks", task], {}, task), routine && [" / ", link(["routines", task, routine], {}, routine)], " / run");
    fill(about, details(context, run, routine));
    if (run.ended_at && run.webhook_url && routine && !webhooks.children.length) {
      fill(webhooks, section("Webhooks", {}, deliveries(context, ["routines", context.session.collection, task, routine], run.trajectory_id)));
    }
  }

  draw(found, events);
  const element = h("div", { class: "run" },
    crumbs, head,
    h("div", { class: "columns" },
      h("div", {}, section("Steps", {}, steps), webhooks, section("Log", {}, happened)),
      h("aside", {},
        section("Details", { class: "card" }, about),
        section("Parameters", { class: "card" }, Object.keys(found.init_params).length ? json(found.init_params) : h("p", { class: "quiet" }, "none")),
        section("Labels", { class: "card" }, labels(context, found)))));
  return {
    element,
    draw,
    /** Update only the elapsed time: everything else stays as the user left it. @param {any} run */
    tick: (run) => fill(lede, progress(run)),
    /** Show the name of the routine. @param {string | null} name */
    belongsTo(name) {
      routine = name;
      around(shown);
    },
  };
}

/** Show the status of the run and its duration. */
function progress(run) {
  const took = run.started_at && duration(secondsBetween(run.started_at, run.ended_at));
  return [badge(run.status),
    took ? ` ${run.ended_at ? "after" : "for"} ${took}, ${run.completed_steps} of ${run.total_steps} steps done` : " and not started yet"];
}

function header(context, run, lede) {
  const trouble = h("div", {});
  return [
    h("div", { class: "headline" }, title(`Run ${run.trajectory_id}`),
      !run.ended_at && h("div", { class: "actions" }, button("Cancel run", (event) => cancel(context, run, trouble, event), { class: "danger", id: "cancel" }))),
    lede,
    run.scheduled_for && h("p", { class: "quiet" }, "For the slot ", at(run.scheduled_for), " UTC"),
    trouble,
    run.error && h("p", { class: "notice bad" }, run.error),
  ];
}

async function cancel({ session: { api, collection }, params: { task }, say, reload }, run, trouble, event) {
  event.currentTarget.disabled = true;
  try {
    await api.send("POST", ["trajectory", collection, task, "statuses"], { [run.trajectory_id]: "cancelled" });
    say(`Run ${run.trajectory_id} was cancelled.`);
    await reload();
  } catch (error) {
    fill(trouble, complaint(error));
  }
}

/** Link to a run of any task. @param {string} name collection/task @param {number} id */
function runLink(name, id) {
  const task = name.split("/")[1];
  return link(["runs", task, id], {}, `Run ${id} of ${task}`);
}

function details({ params: { task } }, run, routine) {
  const byRoutine = run.triggered_by_routine_id;
  /** @type {any[]} */
  const rows = [
    ["Trigger", TRIGGERS[run.trigger] ?? run.trigger],
    byRoutine ? ["Routine", routine ? link(["routines", task, routine], {}, routine) : routine === null ? `${byRoutine} (deleted)` : byRoutine] : null,
    run.scheduled_for ? ["Slot", h("span", {}, utc(run.scheduled_for), " UTC")] : null,
    run.retry_of ? ["Retry of", h("span", {}, runLink(run.name, run.retry_of), `, number ${run.retry_number}`)] : null,
    run.retried_by ? ["Retried by", runLink(run.name, run.retried_by)] : null,
    run.parent_trajectory_id ? ["Parent", runLink(run.parent_name, run.parent_trajectory_id)] : null,
    run.children ? ["Children", h("ul", { class: "plain-list" }, run.children.map((each) =>
      h("li", {}, runLink(each.name, each.trajectory_id), " ", badge(each.status))))] : null,
    run.temporal_url ? ["Temporal", h("a", { href: run.temporal_url, rel: "noreferrer" }, "Open in Temporal")] : null,
    ["Created", when(run.created_at)],
    ["Started", when(run.started_at, "not yet")],
    ["Ended", when(run.ended_at, "not yet")],
    ["Webhook", run.webhook_url ? h("code", { class: "wrap" }, run.webhook_url) : "none"],
    ["Workflow ID", h("code", { class: "wrap" }, run.workflow_id)],
  ];
  return facts(rows.filter(Boolean));
}
