/**
 * Show a routine: its health, what happened in its slots, what comes next, and why.
 */

import { IdempotencyKeys } from "../api.js";
import { address, button, facts, fill, h, link, section, title } from "../dom.js";
import { confirmByName } from "../components/confirm.js";
import { deliveries } from "../components/deliveries.js";
import { complaint } from "../components/failure.js";
import { json } from "../components/json.js";
import { ledger } from "../components/ledger.js";
import { askForPause, pauseNotice } from "../components/pause.js";
import { runs } from "../components/runs.js";
import { badge, SLOTS, strip } from "../components/strip.js";
import { why } from "../components/why.js";
import { latest } from "../fleet.js";
import { healthOf } from "../health.js";
import { go } from "../router.js";
import { when } from "../time.js";
import { cadenceWords, count, exclusionWords, overlapWords } from "../words.js";

const COMING = 5;

/** Build the page. @param {import("../main.js").Context} context */
export async function routine(context) {
  const { session: { api, collection }, params: { task, name }, signal } = context;
  const path = ["routines", collection, task, name];
  const found = await api.get(path, {}, signal);
  const [recents, coming] = await Promise.all([
    latest(context.session, [found.id], SLOTS, signal), api.get([...path, "next"], { count: COMING }, signal)]);
  const recent = recents.get(found.id);
  context.session.routines.set(found.id, found.name);
  const components = { ledger: ledger(context, found), runs: runs(context, path, task), why: why(context, path, task, coming.slots[0]) };
  await Promise.all([components.ledger.load(), components.runs.load()]);
  return { name, body: page(context, found, recent, coming.slots, components, path) };
}

function page(context, found, recent, slots, components, path) {
  const trouble = h("div", {});
  return h("div", { class: "routine" },
    h("p", { class: "crumbs" }, link(["tasks", found.task_name], {}, found.task_name), " / routine"),
    h("div", { class: "headline" }, title(found.name), actions(context, found, path, trouble)),
    h("p", { class: "lede" }, cadenceWords(found.cadence), state(found, recent)),
    trouble,
    notices(found, recent),
    h("div", { class: "columns" },
      h("div", {},
        section("Ledger", {}, h("p", { class: "hint" }, "Every slot has one outcome: a run, or the reason why it did not run."), components.ledger.element),
        section("Runs", {}, components.runs.element),
        found.webhook_url && section("Webhooks", {}, deliveries(context, path, null))),
      h("aside", {},
        section("Why?", { class: "card" }, components.why),
        section("Next slots", { class: "card" }, next(found, slots),
          h("p", {}, h("a", { href: address(["feeds"], { task: found.task_name, routine: found.name }) }, "Subscribe in a calendar"))),
        section("Details", { class: "card" }, details(found)))));
}

function state(found, recent) {
  const { kind, words } = healthOf(found, recent);
  return h("span", { class: "state" }, kind ? badge(kind, words) : h("span", { class: "quiet" }, words), strip(recent?.outcomes ?? []));
}

function notices(found, recent) {
  const { group, cause } = healthOf(found, recent);
  return [
    group === "attention" && cause && h("p", { class: "notice bad" }, cause),
    pauseNotice(found),
    (found.warnings ?? []).map((warning) => h("p", { class: "notice" }, warning)),
  ].flat().filter(Boolean).reduce((list, notice) => (list.append(notice), list), h("div", { class: "notices" }));
}

function actions(context, found, path, trouble) {
  const { api } = context.session;
  const keys = new IdempotencyKeys();

  /** Disable the button while it works, and show errors below the buttons. */
  const doing = (work) => async (event) => {
    event.currentTarget.disabled = true;
    const pressed = event.currentTarget;
    fill(trouble);
    try {
      await work();
    } catch (error) {
      keys.answered(error);
      fill(trouble, complaint(error));
    } finally {
      pressed.disabled = false;
      if (!document.querySelector("main")?.contains(document.activeElement)) pressed.focus();
    }
  };
  const runNow = doing(async () => {
    const started = await api.send("POST", [...path, "run-now"], undefined, keys.keyFor(null));
    context.say(started.message);
    go(address(["runs", found.task_name, started.trajectory_id]));
  });
  const toggle = doing(async () => {
    await api.send("POST", [...path, found.paused ? "resume" : "pause"]);
    context.say(found.paused ? `${found.name} was resumed.` : `${found.name} was paused.`);
    await context.reload("toggle");
  });
  const pauseUntil = doing(async () => {
    if (!await askForPause(found, (body) => api.send("POST", [...path, "pause"], body))) return;
    context.say(found.paused ? `The pause of ${found.name} was changed.` : `${found.name} was paused.`);
    await context.reload("pause-until");
  });
  const remove = doing(async () => {
    const sure = await confirmByName("Delete this routine?", found.name,
      "This also deletes its schedule and its secrets. Its runs are kept. This cannot be undone.", "Delete routine");
    if (!sure) return;
    await api.send("DELETE", path);
    context.say(`${found.name} was deleted.`);
    go(address([]));
  });
  return h("div", { class: "actions" },
    button("Run now", runNow, { class: "primary", id: "run-now" }),
    button(found.paused ? "Resume" : "Pause", toggle, { id: "toggle" }),
    button(found.paused ? "Change pause…" : "Pause until…", pauseUntil, { id: "pause-until" }),
    link(["routines", found.task_name, found.name, "edit"], { class: "button" }, "Edit"),
    button("Delete", remove, { class: "danger", id: "delete" }));
}

function next(found, slots) {
  if (slots.length) return h("ol", { class: "times" }, slots.map((slot) => h("li", {}, when(slot))));
  return h("p", { class: "quiet" }, found.paused ? "None while it is paused." : found.cadence.type === "manual" ? "None: it runs only when someone starts it." : "None.");
}

function details(found) {
  const secrets = Object.keys(found.secret_params);
  return facts([
    ["Last run started", when(found.last_run_at)],
    ["While a run is active", overlapWords(found)],
    ["Catch-up window", found.catchup_window_seconds === undefined ? "default" : count(found.catchup_window_seconds, "second")],
    ...found.spread_seconds ? [["Spread", ["starts up to ", count(found.spread_seconds, "second"), " after each slot"]]] : [],
    ...exclusionWords(found).map((words) => ["Days and hours", words]),
    ["Overrides", Object.keys(found.init_params_overrides).length ? json(found.init_params_overrides) : "none"],
    ["Secrets", secrets.length ? h("ul", { class: "plain-list" }, secrets.map((name) => h("li", {}, h("code", {}, name)))) : "none"],
    ["Webhook", found.webhook_url ? [h("code", { class: "wrap" }, found.webhook_url), found.webhook_secret ? " signed" : " not signed"] : "none"],
    ["ID", found.id],
  ]);
}
