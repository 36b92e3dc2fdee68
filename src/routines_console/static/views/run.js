/**
 * Show a run: its steps, log, parameters and labels. The page follows the run until it ends.
 */

import { pause } from "../api.js";
import { fill, h, section } from "../dom.js";
import { against } from "../components/against.js";
import { children } from "../components/children.js";
import { deliveries } from "../components/deliveries.js";
import { attempts, durations } from "../components/durations.js";
import { jsonView } from "../components/json-view.js";
import { labels } from "../components/labels.js";
import { log } from "../components/log.js";
import { crumbs, runDetails } from "../components/run-details.js";
import { progress, runHead } from "../components/run-head.js";
import { runTimeline } from "../components/run-timeline.js";
import { followRun } from "../following.js";
import { OpenSteps } from "../open-steps.js";
import { newestOf, routineOf } from "../siblings.js";

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

/** Show the name of the routine, then the run beside its newest ones. @param {import("../main.js").Context} context */
async function beside({ session, params: { task }, signal, say }, id, page) {
  const name = await routineOf(session, task, id, signal);
  if (name) page.belongsTo(name, null);
  page.belongsTo(name, name ? await newestOf(session, task, name, signal).catch((error) => {
    if (!signal.aborted) say(`Other runs of ${name} could not be read: ${error.message}`);
    return [];
  }) : []);
}

/** Read the run again whenever it has come further, while it is active and the page is visible. */
async function follow({ session, params: { task, id }, signal, say }, path, first, page) {
  const { api } = session;
  const feed = followRun(session, task, id, signal);
  let shown = first;
  let wait = FIRST_POLL_MILLISECONDS;

  async function look() {
    const fresh = await api.get(path, {}, signal);
    const hasChanged = fresh.updated !== shown.updated || fresh.status !== shown.status;
    page.drawChildren(fresh);
    if (hasChanged) {
      page.draw(fresh, await api.get(["workflows-logs", fresh.workflow_id], {}, signal));
      wait = FIRST_POLL_MILLISECONDS;
    }
    shown = fresh;
  }

  if (shown.ended_at) return;
  await feed.begin();
  // What has changed before the feed began is not in it.
  let isBehind = true;
  while (!shown.ended_at) {
    await pause(wait, signal);
    if (document.visibilityState !== "visible") continue;
    wait = Math.min(wait * 1.5, LONGEST_POLL_MILLISECONDS);
    if (isBehind) await look();
    else await feed.next(({ has_changed: hasChanged }) => hasChanged && look());
    isBehind = false;
  }
  say(`Run ${shown.trajectory_id} ${ENDINGS[shown.status] ?? "has ended"}.`);
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
  const open = new OpenSteps();
  let tick = () => {};

  function draw(run, log_) {
    shown = run;
    open.add(run);
    fill(lede, progress(run));
    fill(head, runHead(context, run, lede));
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

/** Show the other attempts at the slot of a run, and how long runs of its routine take. */
function comparisons(run, newest) {
  const cards = [["Attempts", attempts(run, newest)], ["Durations", durations(run, newest)]];
  return cards.filter(([, content]) => content).map(([heading, content]) => section(heading, { class: "card" }, content));
}

function parameters({ say }, { trajectory_id: id, init_params: given }) {
  if (!Object.keys(given).length) return h("p", { class: "quiet" }, "none");
  return jsonView(given, { name: "the parameters", file: `run-${id}-parameters`, say });
}
