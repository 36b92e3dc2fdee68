/**
 * Show a run: its steps, log, parameters and labels. The page follows the run until it ends.
 */

import { pause } from "../api.js";
import { button, facts, fill, h, link, section, title } from "../dom.js";
import { cause } from "../components/cause.js";
import { deliveries } from "../components/deliveries.js";
import { complaint } from "../components/failure.js";
import { json } from "../components/json.js";
import { labels } from "../components/labels.js";
import { log } from "../components/log.js";
import { badge } from "../components/strip.js";
import { timeline } from "../components/timeline.js";
import { at, duration, elapsed, secondsBetween, utc, when } from "../time.js";

const FIRST_POLL_MILLISECONDS = 1000;
const LONGEST_POLL_MILLISECONDS = 5000;
const ENDINGS = { completed: "has completed", failed: "has failed", cancelled: "was cancelled", archived: "was archived" };
const TRIGGERS = { schedule: "the schedule", "run-now": "Run now", api: "the API", retry: "a failed run" };
/** Draws the bars of running steps as time goes on. */
const BARS_MILLISECONDS = 1000;

/** Build the page. @param {import("../main.js").Context} context */
export async function run(context) {
  const { session: { api, collection }, params: { task, id }, signal } = context;
  const path = ["db", "trajectory", collection, task, id];
  const found = await api.get(path, {}, signal);
  const events = await api.get(["workflows-logs", found.workflow_id], {}, signal);
  const page = body(context, found, events);
  if (found.triggered_by_routine_id) routineOf(context, found.triggered_by_routine_id).then(page.belongsTo);
  const drawing = setInterval(page.tick, BARS_MILLISECONDS);
  signal.addEventListener("abort", () => clearInterval(drawing), { once: true });
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
  let tick = () => {};

  function draw(run, log_) {
    shown = run;
    fill(lede, progress(run));
    fill(head, header(context, run, lede));
    const drawn = timeline(run, open);
    tick = run.ended_at ? () => {} : drawn.tick;
    fill(steps, drawn.element);
    if (log_) fill(happened, log(log_.events, run));
    around(run);
  }

  /** Draw what names the routine, which may be known later than the run. */
  function around(run) {
    fill(crumbs, link(["tasks", task], {}, task), routine && [" / ", link(["routines", task, routine], {}, routine)], " / run");
    fill(about, details(context, run, routine));
    if (run.ended_at && run.webhook_url && routine && !webhooks.children.length) {
      fill(webhooks, section("Webhooks", {}, deliveries(context, ["routines", context.session.collection, task, routine], run.trajectory_id).element));
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
    /** Draw only the bars of the steps again: everything else stays as the user left it. */
    tick: () => tick(),
    /** Show the name of the routine. @param {string | null} name */
    belongsTo(name) {
      routine = name;
      around(shown);
    },
  };
}

/** Show the status of the run and its duration. */
function progress(run) {
  if (isWaitingRetry(run)) return [badge("pending", "Waits for its time"), " and then tries the slot again"];
  if (!run.started_at) return [badge(run.status), run.ended_at ? " before it started" : " and not started yet"];
  return [badge(run.status),
    run.ended_at ? ` after ${duration(secondsBetween(run.started_at, run.ended_at))}` : [" for ", elapsed(run.started_at)],
    `, ${run.completed_steps} of ${run.total_steps} steps done`];
}

/** Return whether a run is a retry that no worker has begun. */
function isWaitingRetry(run) {
  return run.trigger === "retry" && run.status === "running" && !run.started_at;
}

/** Name the run that this one retries, and the run that retries this one; null if there is neither. */
function attempts(run) {
  if (!run.retry_of && !run.retried_by) return null;
  return h("p", {},
    run.retry_of && [`Retry ${run.retry_number} of `, runLink(run.name, run.retry_of, `run ${run.retry_of}`), ", which failed. "],
    run.retried_by && ["It failed and was ", runLink(run.name, run.retried_by, `retried by run ${run.retried_by}`), "."]);
}

function header(context, run, lede) {
  const trouble = h("div", {});
  return [
    h("div", { class: "headline" }, title(`Run ${run.trajectory_id}`),
      !run.ended_at && h("div", { class: "actions" }, button("Cancel run", (event) => cancel(context, run, trouble, event), { class: "danger", id: "cancel" }))),
    lede,
    run.scheduled_for && h("p", { class: "quiet" }, "For the slot ", at(run.scheduled_for), " UTC"),
    attempts(run),
    trouble,
    run.error && cause(run.error, "notice bad"),
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

/** Link to a run of any task. @param {string} name collection/task @param {number} id @param {string} [text] */
function runLink(name, id, text) {
  const task = name.split("/")[1];
  return link(["runs", task, id], {}, text ?? `Run ${id} of ${task}`);
}

/** Say what started a run; a child says "API" in the API. */
function trigger(run) {
  if (run.parent_trajectory_id) return ["a step of ", runLink(run.parent_name, run.parent_trajectory_id)];
  return TRIGGERS[run.trigger] ?? run.trigger;
}

function details({ params: { task } }, run, routine) {
  const byRoutine = run.triggered_by_routine_id;
  /** @type {any[]} */
  const rows = [
    ["Started by", trigger(run)],
    byRoutine ? ["Routine", routine ? link(["routines", task, routine], {}, routine) : routine === null ? `${byRoutine} (deleted)` : byRoutine] : null,
    run.scheduled_for ? ["Slot", h("span", {}, utc(run.scheduled_for), " UTC")] : null,
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
