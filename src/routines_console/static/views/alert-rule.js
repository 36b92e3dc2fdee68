/**
 * Create an alert rule, or edit one.
 */

import { address, fill, h, link, title } from "../dom.js";
import { complaint } from "../components/failure.js";
import { clearErrors, field, focusError, numberOrNull, showError, showErrors } from "../components/fields.js";
import { webhookSecret } from "../components/secrets.js";
import { EVENTS } from "../words.js";

const HINTS = {
  late: "A slot has been due for a minute, or as long as you say below, and has not started.",
  missed: "A slot was missed, and will not run.",
  failed: "A slot failed with its last attempt, or could not start.",
  streak: "Several slots in a row failed.",
  slow: "A run takes three times as long as usual, or longer than you say below.",
  paused: "The scheduler paused a routine.",
  webhook_stopped: "The webhook of a run was given up.",
  recovered: "Also when it is over.",
};
const BLANK = {
  name: "", on: ["late", "missed", "failed", "paused", "recovered"], after_seconds: null, streak: null, scope: { task: null, routine: null },
  webhook_url: "", webhook_secret: null, digest: "now", digest_at_utc: null,
};

/** Build the page that creates a rule. @param {import("../main.js").Context} context */
export async function newRule(context) {
  return page(context, BLANK, title("New alert rule"), "New alert rule");
}

/** Build the page that edits a rule. @param {import("../main.js").Context} context */
export async function editRule(context) {
  const { session: { api, collection }, params: { rule }, signal } = context;
  return page(context, await api.get(["alert-rules", collection, rule], {}, signal), title(`Edit ${rule}`), `Edit ${rule}`);
}

async function page(context, given, heading, name) {
  const { session: { api, collection }, signal } = context;
  const tasks = await api.get(["tasks", collection, ""], {}, signal);
  return {
    name,
    body: h("div", { class: "form-page" }, h("p", { class: "crumbs" }, link(["alerts"], {}, "Alerts"), ` / ${given.name || "new"}`), heading,
      form(context, given, tasks)),
  };
}

function form(context, given, tasks) {
  const { api, collection } = context.session;
  const isNew = !given.name;
  const name = h("input", { id: "name", value: given.name, readonly: !isNew, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const events = choices(given.on);
  const after = h("input", { id: "after", type: "number", min: 1, max: 2592000, value: given.after_seconds, placeholder: "default" });
  const streak = h("input", { id: "streak", type: "number", min: 2, max: 100, value: given.streak, placeholder: "3" });
  const scope = watched(tasks, given.scope);
  const url = h("input", { id: "webhook-url", type: "url", value: given.webhook_url, placeholder: "https://…", autocomplete: "off" });
  const signature = webhookSecret(given.webhook_secret !== null);
  const digest = daily(given);
  const trouble = h("div", {});
  const ofAfter = field("after_seconds", "Late or slow after, in seconds", after, "Leave empty for a minute, and for three times the usual duration of each routine.");
  const ofStreak = field("streak", "Failed slots in a row", streak);

  function turned() {
    const on = events.read();
    ofAfter.hidden = !on.includes("late") && !on.includes("slow");
    ofStreak.hidden = !on.includes("streak");
  }

  function read() {
    return {
      on: events.read(), scope: scope.read(), webhook_url: url.value.trim(), webhook_secret: signature.read(), ...digest.read(),
      ...ofAfter.hidden ? {} : { after_seconds: numberOrNull(after) }, ...ofStreak.hidden ? {} : { streak: numberOrNull(streak) },
    };
  }

  async function onsubmit(event) {
    event.preventDefault();
    if (element.hasAttribute("aria-busy")) return;
    clearErrors(element);
    fill(trouble);
    if (!name.value.trim()) {
      showError(element, "name", "needs a name");
      return focusError(element);
    }
    element.setAttribute("aria-busy", "true");
    try {
      const saved = await api.send("PUT", ["alert-rules", collection, name.value.trim()], read());
      context.say(`The rule ${saved.name} was saved.`);
      context.done(address(["alerts"]));
    } catch (error) {
      fill(trouble, showErrors(element, error) ? null : complaint(error));
    } finally {
      element.removeAttribute("aria-busy");
    }
  }

  const element = h("form", { class: "routine-form", onsubmit, oninput: turned, novalidate: true, "data-guarded": true },
    field("name", "Name", name, isNew ? "Lower-case letters, digits, - and _. A rule of the same name is replaced." : null),
    events.element, ofAfter, ofStreak, scope.element,
    h("h2", {}, "Notices"),
    field("webhook_url", "Webhook URL", url, "Each notice is sent to this URL by POST."),
    signature.element, digest.element, trouble,
    h("div", { class: "actions end" }, h("button", { class: "primary", id: "save" }, "Save rule"), h("a", { class: "button", href: address(["alerts"]) }, "Cancel")));
  turned();
  return element;
}

/** Build the checkboxes of the events. @param {string[]} on */
function choices(on) {
  const boxes = Object.entries(EVENTS).map(([event, text]) => {
    const box = h("input", { type: "checkbox", value: event, id: `on-${event}`, checked: on.includes(event) });
    return { box, element: h("div", {}, h("label", { class: "toggle" }, box, text), h("p", { class: "hint" }, HINTS[event])) };
  });
  return {
    element: h("fieldset", { class: "field choices", "data-field": "on" }, h("legend", {}, "What it tells"), boxes.map(({ element }) => element),
      h("p", { class: "field-error" })),
    read: () => boxes.filter(({ box }) => box.checked).map(({ box }) => box.value),
  };
}

/** Build the choice of the routines that the rule watches. */
function watched(tasks, given) {
  const names = [...new Set([...tasks.map(({ name }) => name), ...given.task ? [given.task] : []])];
  const task = h("select", { id: "scope-task", onchange: () => { ofRoutine.hidden = !task.value; } }, h("option", { value: "" }, "All tasks"),
    names.map((name) => h("option", { value: name, selected: name === given.task }, name)));
  const routine = h("input", { id: "scope-routine", value: given.routine ?? "", placeholder: "all of the task", autocomplete: "off", spellcheck: "false" });
  const ofRoutine = field("scope.routine", "Routine", routine, "Leave empty for all routines of the task.");
  ofRoutine.hidden = !given.task;
  return {
    element: h("div", { "data-field": "scope" }, field("scope.task", "Watch the routines of", task), ofRoutine, h("p", { class: "field-error" })),
    read: () => task.value ? { task: task.value, routine: routine.value.trim() || null } : {},
  };
}

/** Build the choice between a notice for each alert and one a day. */
function daily(given) {
  const choice = h("select", { id: "digest", onchange: () => { ofTime.hidden = choice.value !== "daily"; } },
    [["now", "At once, for each alert"], ["daily", "Once a day, with all since the last one"]].map(([value, text]) =>
      h("option", { value, selected: value === given.digest }, text)));
  const time = h("input", { id: "digest-at", value: given.digest_at_utc ?? "", placeholder: "08:00", pattern: "[0-2][0-9]:[0-5][0-9]", autocomplete: "off" });
  const ofTime = field("digest_at_utc", "At (UTC)", time);
  ofTime.hidden = given.digest !== "daily";
  return {
    element: h("div", {}, field("digest", "When", choice), ofTime),
    read: () => choice.value === "daily" ? { digest: "daily", digest_at_utc: time.value.trim() || null } : { digest: "now" },
  };
}
