/**
 * Show a run: its steps, log, parameters and labels. The page follows the run until it ends.
 */

import { pause } from "../api.js";
import { button, fill, h, section, title } from "../dom.js";
import { against } from "../components/against.js";
import { cause } from "../components/cause.js";
import { children } from "../components/children.js";
import { deliveries } from "../components/deliveries.js";
import { attempts, durations, RUNS } from "../components/durations.js";
import { complaint } from "../components/failure.js";
import { jsonView } from "../components/json-view.js";
import { labels } from "../components/labels.js";
import { log } from "../components/log.js";
import { rerun } from "../components/rerun.js";
import { crumbs, retries, runDetails } from "../components/run-details.js";
import { runTimeline } from "../components/run-timeline.js";
import { badge } from "../components/strip.js";
import { followRun } from "../following.js";
import { at, duration, elapsed, secondsBetween } from "../time.js";

const FIRST_POLL_MILLISECONDS = 1000;
const LONGEST_POLL_MILLISECONDS = 5000;
const ENDINGS = { completed: "has completed", failed: "has failed", cancelled: "was cancelled", archived: "was archived" };
/** Draws the bars of running steps as time goes on. */
const BARS_MILLISECONDS = 1000;

/** Build the page. @param {import("../main.js").Context} context */
export async function run(context) {
  const { session: { api, collection }, params: { task, id }, signal } = context;
  const path = ["db", "trajectory", collection, task, id];
  const found = await api.get(path, {}, signal);
  const events = await api.get(["workflows-logs", found.workflow_id], {}, signal);
  const page = body(context, found, events);
  if (found.triggered_by_routine_id) beside(context, found.triggered_by_routine_id, page);
  const drawing = setInterval(page.tick, BARS_MILLISECONDS);
  signal.addEventListener("abort", () => clearInterval(drawing), { once: true });
  follow(context, path, found, page).catch((error) => {
    if (!signal.aborted) context.say(`No longer following this run: ${error.message}`);
  });
  return { name: `Run ${found.trajectory_id}`, body: page.element };
}

/** Show the name of the routine, then the run beside its newest ones. */
async function beside(context, id, page) {
  const name = await routineOf(context, id);
  if (name) page.belongsTo(name, null);
  page.belongsTo(name, name ? await newestOf(context, name) : []);
}

/** Return the newest runs of a routine; none if they could not be read. */
async function newestOf({ session: { api, collection }, params: { task }, signal, say }, name) {
  try {
    return await api.get(["routines", collection, task, name, "runs"], { limit: RUNS }, signal);
  } catch (error) {
    if (!signal.aborted) say(`Other runs of ${name} could not be read: ${error.message}`);
    return [];
  }
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

/** Read the run again whenever it has come further, while it is active and the page is visible. */
async function follow({ session, params: { task, id }, signal, say }, path, first, page) {
  const { api } = session;
  const feed = followRun(session, task, id, signal);
  let shown = first;
  let wait = FIRST_POLL_MILLISECONDS;
  /** What has changed before the feed began is not in it. */
  let isFirst = true;
  while (!shown.ended_at) {
    if (isFirst) await feed.next();
    await pause(wait, signal);
    if (document.visibilityState !== "visible") continue;
    if (!isFirst && !(await feed.next()).has_changed) {
      wait = Math.min(wait * 1.5, LONGEST_POLL_MILLISECONDS);
      continue;
    }
    isFirst = false;
    const fresh = await api.get(path, {}, signal);
    const hasChanged = fresh.updated !== shown.updated || fresh.status !== shown.status;
    page.drawChildren(fresh);
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
  /** The newest runs of the routine; null while they are being read. @type {any[] | null} */
  let newest = null;
  const [trail, lede] = [h("p", { class: "crumbs" }), h("p", { class: "lede" })];
  const [head, steps, kids, happened, about, webhooks, compared] = Array.from({ length: 7 }, () => h("div", {}));
  const grid = children();
  const good = against(context);
  const open = new Steps();
  let tick = () => {};

  function draw(run, log_) {
    shown = run;
    open.add(run);
    fill(lede, progress(run));
    fill(head, header(context, run, lede));
    const focused = steps.contains(document.activeElement) ? document.activeElement : null;
    const drawn = runTimeline(run, log_.events, open, context.say);
    tick = run.ended_at ? () => {} : drawn.tick;
    fill(steps, drawn.element);
    // What is kept has been moved, and has lost the focus by that.
    if (focused?.isConnected) /** @type {HTMLElement} */ (focused).focus({ preventScroll: true });
    fill(happened, log(log_.events, run));
    drawChildren(run);
    around(run);
  }

  /** Draw the runs that it has started, which go on while nothing else of it changes. */
  function drawChildren(run) {
    if (!run.children) return;
    grid.draw(run.children);
    if (!kids.children.length) fill(kids, section("Children", {}, grid.element));
  }

  /** Draw what names the routine, which may be known later than the run. */
  function around(run) {
    fill(trail, crumbs(run, task, routine));
    fill(about, runDetails(run, task, routine));
    fill(compared, comparisons(run, newest ?? []));
    if (newest) good.draw(run, newest, routine);
    if (run.ended_at && run.webhook_url && routine && !webhooks.children.length) {
      fill(webhooks, section("Webhooks", {}, deliveries(context, ["routines", context.session.collection, task, routine], run.trajectory_id).element));
    }
  }

  draw(found, events);
  const element = h("div", { class: "run" },
    trail, head,
    h("div", { class: "columns" },
      h("div", {}, section("Steps", {}, steps), good.element, kids, webhooks, section("Log", {}, happened)),
      h("aside", {},
        section("Details", { class: "card" }, about),
        compared,
        section("Parameters", { class: "card" }, parameters(context, found)),
        section("Labels", { class: "card" }, labels(context, found)))));
  return {
    element,
    draw,
    drawChildren,
    /** Draw only the bars of the steps again: everything else stays as the user left it. */
    tick: () => tick(),
    /** Show the name of the routine, null if it was deleted, and its newest runs, once they are known. @param {string | null} name @param {any[] | null} runs */
    belongsTo(name, runs) {
      [routine, newest] = [name, runs];
      around(shown);
    },
  };
}

/** The steps that are expanded, and the views of their values. One that has failed expands by itself, once: the user may close it. */
class Steps {
  /** @type {Set<string>} */
  names = new Set();
  /** @type {Map<string, Node>} */
  views = new Map();
  #failed = new Set();

  /** @param {any} run */
  add({ steps }) {
    for (const [name, { status }] of Object.entries(steps)) {
      if (status !== "failed" || this.#failed.has(name)) continue;
      this.#failed.add(name);
      this.names.add(name);
    }
  }
}

/** Show the other attempts at the slot of a run, and how long runs of its routine take. */
function comparisons(run, newest) {
  const cards = [["Attempts", attempts(run, newest)], ["Durations", durations(run, newest)]];
  return cards.filter(([, content]) => content).map(([heading, content]) => section(heading, { class: "card" }, content));
}

function parameters({ say }, { trajectory_id: id, init_params: given }) {
  if (!Object.keys(given).length) return h("p", { class: "quiet" }, "none");
  return jsonView(given, { name: "the parameters", file: `run-${id}-parameters`, say });
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

function header(context, run, lede) {
  const trouble = h("div", {});
  return [
    h("div", { class: "headline" }, title(`Run ${run.trajectory_id}`),
      h("div", { class: "actions" }, !run.ended_at && button("Cancel run", (event) => cancel(context, run, trouble, event), { class: "danger", id: "cancel" }))),
    lede,
    (run.scheduled_for ?? run.fills_slot) && h("p", { class: "quiet" }, "For the slot ", at(run.scheduled_for ?? run.fills_slot)),
    retries(run),
    trouble,
    run.error && cause(run.error, "notice bad"),
    run.ended_at && rerun(context, run),
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
