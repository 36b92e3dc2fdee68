/**
 * Start the console: sign in, open pages, and report errors.
 *
 * @typedef {object} Context What every page receives.
 * @property {import("./session.js").Session} session
 * @property {Record<string, string>} params
 * @property {Record<string, string>} query
 * @property {AbortSignal} signal Aborted when the user leaves the page.
 * @property {(text: string) => void} say Shows a short message at the bottom of the screen.
 * @property {(focus?: string) => Promise<void>} reload Loads the page again and focuses the element with this id.
 * @property {any} kept What the page kept when it was left, if Back or Forward leads to it again; null otherwise.
 * @property {(keep: () => any) => void} keep Names what it keeps.
 * @property {(hash: string) => void} done Opens another page without asking about changes: they were saved.
 *
 * @typedef {{name: string, body: Node}} View What every page returns: its name and its content.
 */

import { Problem } from "./api.js";
import { fill, h } from "./dom.js";
import { confirm } from "./components/confirm.js";
import { failure } from "./components/failure.js";
import { frame } from "./components/frame.js";
import { openPalette } from "./components/palette.js";
import { listen } from "./keys.js";
import { Places } from "./places.js";
import { go, match, place } from "./router.js";
import { forget, resume } from "./session.js";
import { hasChanges, release, watch } from "./unsaved.js";
import { editRule, newRule } from "./views/alert-rule.js";
import { alerts } from "./views/alerts.js";
import { changes } from "./views/changes.js";
import { feeds } from "./views/feeds.js";
import { gaps } from "./views/gaps.js";
import { limits } from "./views/limits.js";
import { overview } from "./views/overview.js";
import { report } from "./views/report.js";
import { editRoutine, newRoutine } from "./views/routine-form.js";
import { routine } from "./views/routine.js";
import { run } from "./views/run.js";
import { signInPage } from "./views/sign-in.js";
import { task } from "./views/task.js";
import { editTask, newTask } from "./views/task-form.js";
import { tasks } from "./views/tasks.js";
import { timeline } from "./views/timeline.js";
import { versions } from "./views/versions.js";
import { week } from "./views/week.js";

/** @type {[string, (context: Context) => Promise<View>][]} */
const ROUTES = [
  ["/", overview],
  ["/new", newRoutine],
  ["/new/task", newTask],
  ["/routines/:task/:name", routine],
  ["/routines/:task/:name/edit", editRoutine],
  ["/routines/:task/:name/gaps", gaps],
  ["/timeline", timeline],
  ["/week", week],
  ["/report", report],
  ["/tasks", tasks],
  ["/tasks/:task", task],
  ["/tasks/:task/edit", editTask],
  ["/tasks/:task/versions", versions],
  ["/runs/:task/:id", run],
  ["/alerts", alerts],
  ["/alerts/new", newRule],
  ["/alerts/rules/:rule", editRule],
  ["/changes", changes],
  ["/feeds", feeds],
  ["/limits", limits],
];

const NO_SUCH_PAGE = { title: "Page not found", detail: "The console has no page at this address.", advice: "Check the address for a typing error." };

/** @type {import("./session.js").Session | null} */
let session = null;
let leaving = new AbortController();
let isAsking = false;
const places = new Places();
const shell = frame({ signOut, find });

addEventListener("hashchange", moved);
listen(find);
addEventListener("beforeunload", (event) => {
  if (hasChanges(document.body) || session?.work?.isRunning) event.preventDefault();
});

/** Open the page of the new address, unless that would lose changes that the user wants to keep. @param {HashChangeEvent} event */
async function moved(event) {
  if (!hasChanges(document.body)) {
    places.leave();
    return show(undefined, places.arrive());
  }
  const { hash } = new URL(event.newURL);
  history.pushState(null, "", event.oldURL);
  if (await maySetAside()) done(hash);
}

function find() {
  if (session) openPalette(session, shell.say);
}

async function signOut() {
  if (await maySetAside() && await mayStop()) leave("You have signed out, and this tab has forgotten the key.");
}

/** Return whether there are no changes that leaving the page would lose, or the user gives them up. */
async function maySetAside() {
  if (!hasChanges(document.body)) return true;
  if (isAsking) return false;
  isAsking = true;
  try {
    return await confirm("Leave without saving?", "What you changed on this page has not been saved.", "Leave", "Stay here");
  } finally {
    isAsking = false;
  }
}

/** Return whether nothing is being done with several routines, or the user lets it stop. */
async function mayStop() {
  const work = session?.work;
  if (!work?.isRunning) return true;
  const rest = work.in("waiting", "working").length;
  return confirm("Sign out and stop?", `${work.words.doing} is going on: ${rest.toLocaleString("en")} of ${work.items.length.toLocaleString("en")} are left.`,
    "Sign out", "Stay here");
}

/** @param {string} hash */
function done(hash) {
  release(document.body);
  go(hash);
}

/**
 * @param {string} [focus]
 * @param {import("./places.js").Place | null} [back] Where the user was on the page before.
 */
async function show(focus, back = null) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  if (!session) return askForKey("");
  const { path, query } = place();
  const found = match(ROUTES, path);
  shell.opening(path[0] ?? "");
  try {
    const view = found
      ? await found.view({ session, params: found.params, query, signal, say: shell.say, reload: show, done, kept: back?.kept ?? null, keep: (keep) => { if (!signal.aborted) places.keep(keep); } })
      : { name: NO_SUCH_PAGE.title, body: failure(new Problem(404, NO_SUCH_PAGE, NO_SUCH_PAGE.advice)) };
    if (signal.aborted) return;
    shell.opened(view, focus ?? back?.focus);
    if (back) scrollTo(0, back.top);
    watch(document.body);
  } catch (error) {
    if (!signal.aborted) showFailure(error);
  }
}

/** @param {any} error */
function showFailure(error) {
  shell.opened({ name: "Error", body: failure(error, { again: () => show() }) });
}

/** @param {string} reason */
function leave(reason) {
  leaving.abort();
  release(document.body);
  session?.work?.stop();
  session = null;
  forget();
  askForKey(reason);
}

/** @param {string} reason */
function askForKey(reason) {
  const page = signInPage(reason, (opened) => {
    enter(opened);
  });
  fill(document.body, page);
  document.title = "Sign in · Routines";
  /** @type {HTMLElement} */ (page.querySelector("input")).focus();
}

/** @param {import("./session.js").Session} opened */
function enter(opened) {
  session = opened;
  session.api.onRefused = () => leave("This key no longer works: it was revoked or has expired.");
  fill(document.body, shell.element);
  shell.collection(session.collection);
  places.arrive();
  show();
}

async function begin() {
  addEventListener("unhandledrejection", (event) => {
    if (event.reason instanceof Problem) {
      event.preventDefault();
      shell.say(event.reason.message);
    } else if (event.reason?.name === "AbortError") event.preventDefault();
  });
  let resumed = null;
  try {
    resumed = await resume();
  } catch (error) {
    if (!(error instanceof Problem && error.status === 401)) {
      return fill(document.body, h("main", { class: "alone" }, failure(error, { again: () => location.reload() })));
    }
    forget();
  }
  if (resumed) enter(resumed);
  else askForKey("");
}

begin();
