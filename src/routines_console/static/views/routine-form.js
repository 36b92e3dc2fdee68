/**
 * Create a routine, or edit one. Errors are shown next to the field that the service names.
 */

import { IdempotencyKeys } from "../api.js";
import { cadenceTypes } from "../cadences.js";
import { address, empty, fill, h, link, title } from "../dom.js";
import { cadenceFields } from "../components/cadence.js";
import { daysAndHours } from "../components/days-and-hours.js";
import { complaint } from "../components/failure.js";
import { failing } from "../components/failing.js";
import { clearErrors, field, focusError, numberOrNull, showErrors } from "../components/fields.js";
import { overlap } from "../components/overlap.js";
import { parameters } from "../components/parameters.js";
import { secrets, webhookSecret } from "../components/secrets.js";
import { note } from "../router.js";

const BLANK = {
  name: "", cadence: null, init_params_overrides: {}, secret_params: {}, webhook_url: null, webhook_secret: null,
  paused: false, overlap_policy: "skip",
};

/** Build the page that creates a routine. @param {import("../main.js").Context} context */
export async function newRoutine(context) {
  const { session: { api, collection }, query, signal } = context;
  const tasks = await api.get(["tasks", collection, ""], {}, signal);
  if (!tasks.length) {
    return { name: "New routine", body: h("div", {}, title("New routine"), empty("No tasks yet", "A routine runs a task, so write a task first. ", link(["new", "task"], {}, "Write one"))) };
  }
  const chosen = tasks.some(({ name }) => name === query.task) ? query.task : tasks[0].name;
  const form = await routineForm(context, chosen, BLANK, async (body, task) => {
    const created = await api.send("POST", ["routines", collection, task], body, form.keys.keyFor([task, body]));
    context.say(`${created.name} was saved.`);
    context.done(address(["routines", task, created.name]));
  });
  const choice = h("select", { id: "task", onchange: () => form.turnTo(choice.value) },
    tasks.map(({ name }) => h("option", { value: name, selected: name === chosen }, name)));
  form.element.prepend(field("task", "Task", choice));
  return { name: "New routine", body: page(form, title("New routine"), [link([], {}, "Overview"), " / new"], address([])) };
}

/** Build the page that edits a routine. @param {import("../main.js").Context} context */
export async function editRoutine(context) {
  const { session: { api, collection }, params: { task, name }, signal } = context;
  const path = ["routines", collection, task, name];
  const found = await api.get(path, {}, signal);
  const back = address(["routines", task, name]);
  const form = await routineForm(context, task, found, async (body) => {
    const changed = differences(found, body);
    const saved = Object.keys(changed).length ? await api.send("PATCH", path, changed) : found;
    context.say(`${saved.name} was saved.`);
    context.done(address(["routines", task, saved.name]));
  });
  const crumbs = [link(["tasks", task], {}, task), " / ", link(["routines", task, name], {}, name), " / edit"];
  return { name: `Edit ${name}`, body: page(form, title(`Edit ${name}`), crumbs, back) };
}

function page(form, heading, crumbs, back) {
  form.element.append(h("div", { class: "actions end" }, h("button", { class: "primary", id: "save" }, "Save routine"), h("a", { class: "button", href: back }, "Cancel")));
  return h("div", { class: "form-page" }, h("p", { class: "crumbs" }, crumbs), heading,
    h("div", { class: "columns" }, form.element, h("aside", {}, form.preview)));
}

async function routineForm(context, firstTask, given, save) {
  const { api, collection } = context.session;
  const [types, calendars] = await Promise.all([cadenceTypes(context.session), api.get(["calendars", collection], {}, context.signal)]);
  const chosen = await taskParameters(context, firstTask, given);
  const name = h("input", { id: "name", value: given.name, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const limits = daysAndHours(given, calendars);
  const cadence = cadenceFields(context, types, given, chosen.task, limits);
  const secretParams = secrets(given.secret_params);
  const url = h("input", { id: "webhook-url", type: "url", value: given.webhook_url ?? "", placeholder: "https://…", autocomplete: "off" });
  const signature = webhookSecret(given.webhook_secret !== null);
  const ifFailing = failing(given);
  const ifActive = overlap(given);
  const timeout = h("input", { id: "timeout", type: "number", min: 1, value: given.timeout_seconds ?? null, placeholder: "that of the service" });
  const paused = h("input", { id: "paused", type: "checkbox", checked: given.paused });
  const catchup = h("input", { id: "catchup", type: "number", min: 0, value: given.catchup_window_seconds ?? null, placeholder: "default" });
  const spread = h("input", { id: "spread", type: "number", min: 0, max: 3600, value: given.spread_seconds ?? null, placeholder: "none" });
  const trouble = h("div", {});
  const keys = new IdempotencyKeys();

  /** Return the request's body; null, with messages, if an input is not valid. */
  function read() {
    const [params, secret_params, failure] = [chosen.read(), secretParams.read(), ifFailing.read()];
    if (!params || !secret_params || !failure) return null;
    return {
      name: name.value.trim(), cadence: cadence.read(), ...limits.read(), ...params, secret_params,
      webhook_url: url.value.trim() || null, webhook_secret: signature.read(), ...failure, ...ifActive.read(),
      // Left out unless changed: a pause that has ended by itself in the meantime must not begin again.
      ...paused.checked === given.paused ? {} : { paused: paused.checked },
      timeout_seconds: numberOrNull(timeout), catchup_window_seconds: numberOrNull(catchup), spread_seconds: numberOrNull(spread),
    };
  }

  async function onsubmit(event) {
    event.preventDefault();
    if (element.hasAttribute("aria-busy")) return;
    clearErrors(element);
    fill(trouble);
    const body = read();
    if (!body) return focusError(element);
    element.setAttribute("aria-busy", "true");
    try {
      await save(body, chosen.task());
    } catch (error) {
      fill(trouble, showErrors(element, error) ? null : complaint(error));
      keys.answered(error);
    } finally {
      element.removeAttribute("aria-busy");
    }
  }

  async function turnTo(task) {
    try {
      await chosen.turnTo(task);
      note(address(["new"], { task }));
      cadence.changed();
    } catch (error) {
      if (!context.signal.aborted) fill(trouble, complaint(error));
    }
  }

  const element = h("form", { class: "routine-form", onsubmit, novalidate: true, "data-guarded": true },
    field("name", "Name", name, "Lower-case letters, digits, - and _, starting and ending with a letter or digit."),
    cadence.element,
    h("h2", {}, "Parameters"),
    chosen.element,
    h("h2", {}, "Secrets"),
    h("p", { class: "hint" }, "Stored encrypted, passed only to the steps that name them, and never shown again."),
    secretParams.element,
    h("h2", {}, "If runs fail"),
    field("timeout_seconds", "Each run may take, in seconds", timeout, "A run that takes longer fails. Leave empty for the deadline of all runs of the service."),
    ifFailing.element,
    h("h2", {}, "When a run ends"),
    field("webhook_url", "Webhook URL", url, "The run is sent to this URL by POST. Leave empty to send nothing."),
    signature.element,
    h("h2", {}, "Schedule"),
    ifActive.element,
    field("catchup_window_seconds", "Catch-up window, in seconds", catchup, "After an outage, slots up to this age still run. Leave empty for the default: an hour for hourly routines, 12 hours for the others."),
    field("spread_seconds", "Spread, in seconds", spread, "Each slot runs up to this much after its time, so that routines with the same cadence do not start together. A routine’s delay is always the same. Leave empty for none."),
    h("div", { class: "field", "data-field": "paused" }, h("label", { class: "toggle" }, paused, "Paused: slots do not start runs"), h("p", { class: "field-error" })),
    trouble);
  return { element, preview: cadence.preview, keys, turnTo };
}

/**
 * Build the inputs of the parameters of a task, which may be exchanged for those of another. What was set for one task is set for the
 * next as far as that declares it, and is back when the user returns.
 */
async function taskParameters({ session: { api, collection }, signal }, firstTask, given) {
  const element = h("div", {});
  /** What was set for the tasks before, by field and parameter. @type {Record<string, Record<string, any>>} */
  const remembered = { init_params_overrides: {}, init_params_from_slot: {} };
  let task = firstTask;
  let wanted = firstTask;
  let keys = await keysOf(firstTask);
  let inputs = parameters(keys, given);
  fill(element, inputs.element);

  async function keysOf(name) {
    return (await api.get(["tasks", collection, name, "init-params-schema"], {}, signal)).keys;
  }

  async function turnTo(name) {
    wanted = name;
    const found = await keysOf(name);
    if (wanted !== name) return;
    for (const [each, values] of Object.entries(inputs.peek())) {
      for (const { name: key } of keys) delete remembered[each][key];
      Object.assign(remembered[each], values);
    }
    [task, keys] = [name, found];
    inputs = parameters(keys, {
      init_params_overrides: declared(remembered.init_params_overrides), init_params_from_slot: declared(remembered.init_params_from_slot),
    });
    fill(element, inputs.element);
  }

  function declared(values) {
    return Object.fromEntries(Object.entries(values).filter(([name]) => keys.some((key) => key.name === name)));
  }

  return { element, task: () => task, read: () => inputs.read(), turnTo };
}

/** Return the fields that changed. The others are not sent, so that a change that someone else made to them is kept. */
function differences(before, after) {
  const was = { ...before, then: before.then ?? "pause" };
  const isSame = (name) => name === "cadence" ? isSameCadence(was.cadence, after.cadence) : isEqual(was[name] ?? null, after[name]);
  return Object.fromEntries(Object.entries(after).filter(([name]) => !isSame(name)));
}

/** Compare the fields that the form shows: the service also returns those that the type does not take. */
function isSameCadence(before, after) {
  return Object.entries(after).every(([name, value]) => isEqual(before[name] ?? null, value));
}

function isEqual(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}
