/**
 * Make a routine, or change one. What the service refuses is shown at the field that it names.
 */

import { Once } from "../api.js";
import { address, empty, fill, h, link, title } from "../dom.js";
import { cadenceFields } from "../components/cadence.js";
import { complaint } from "../components/failure.js";
import { clearErrors, field, showErrors } from "../components/fields.js";
import { overrides } from "../components/overrides.js";
import { secrets, webhookSecret } from "../components/secrets.js";
import { go } from "../router.js";

const BLANK = {
  name: "", cadence: { type: "weekdays", hour_utc: 9, minute_utc: 0 }, init_params_overrides: {}, secret_params: {},
  webhook_url: null, webhook_secret: null, paused: false,
};

/** @param {import("../main.js").Context} context */
export async function newRoutine(context) {
  const { session: { api, collection }, query, signal } = context;
  const tasks = await api.get(["tasks", collection, ""], {}, signal);
  if (!tasks.length) {
    return { name: "New routine", body: h("div", {}, title("New routine"), empty("There is no task yet", "A routine runs a task: make one first. ", link(["tasks"], {}, "How"))) };
  }
  const chosen = tasks.some(({ name }) => name === query.task) ? query.task : tasks[0].name;
  const choice = h("select", { id: "task", onchange: () => go(address(["new"], { task: choice.value })) },
    tasks.map(({ name }) => h("option", { value: name, selected: name === chosen }, name)));
  const form = await routineForm(context, chosen, BLANK, async (body) => {
    const made = await api.send("POST", ["routines", collection, chosen], body, form.once.key(body));
    context.say(`${made.name} is saved.`);
    go(address(["routines", chosen, made.name]));
  });
  form.element.prepend(field("task", "Task", choice));
  return { name: "New routine", body: page(form, title("New routine"), [link([], {}, "Overview"), " / new"], address([])) };
}

/** @param {import("../main.js").Context} context */
export async function editRoutine(context) {
  const { session: { api, collection }, params: { task, name }, signal } = context;
  const path = ["routines", collection, task, name];
  const found = await api.get(path, {}, signal);
  const back = address(["routines", task, name]);
  const form = await routineForm(context, task, found, async (body) => {
    const changed = differences(found, body);
    const saved = Object.keys(changed).length ? await api.send("PATCH", path, changed) : found;
    context.say(`${saved.name} is saved.`);
    go(address(["routines", task, saved.name]));
  });
  const crumbs = [link(["tasks", task], {}, task), " / ", link(["routines", task, name], {}, name), " / edit"];
  return { name: `Edit ${name}`, body: page(form, title(`Edit ${name}`), crumbs, back) };
}

function page(form, heading, crumbs, back) {
  form.element.append(h("div", { class: "actions end" }, h("button", { class: "primary", id: "save" }, "Save routine"), h("a", { class: "button", href: back }, "Cancel")));
  return h("div", { class: "form-page" }, h("p", { class: "crumbs" }, crumbs), heading,
    h("div", { class: "columns" }, form.element, h("aside", {}, form.preview)));
}

async function routineForm(context, task, given, save) {
  const { session: { api, collection }, signal } = context;
  const schema = await api.get(["tasks", collection, task, "init-params-schema"], {}, signal);
  const name = h("input", { id: "name", value: given.name, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const cadence = cadenceFields(context, given.cadence);
  const params = overrides(schema.keys, given.init_params_overrides, "init_params_overrides");
  const hidden = secrets(given.secret_params);
  const url = h("input", { id: "webhook-url", type: "url", value: given.webhook_url ?? "", placeholder: "https://…", autocomplete: "off" });
  const sign = webhookSecret(given.webhook_secret !== null);
  const paused = h("input", { id: "paused", type: "checkbox", checked: given.paused });
  const window_ = h("input", { id: "catchup", type: "number", min: 0, value: given.catchup_window_seconds ?? null, placeholder: "default" });
  const trouble = h("div", {});
  const once = new Once();

  const read = () => ({
    name: name.value.trim(), cadence: cadence.read(), init_params_overrides: params.read(), secret_params: hidden.read(),
    webhook_url: url.value.trim() || null, webhook_secret: sign.read(), paused: paused.checked,
    catchup_window_seconds: window_.value === "" ? null : Number(window_.value),
  });

  async function onsubmit(event) {
    event.preventDefault();
    if (element.hasAttribute("aria-busy")) return;
    clearErrors(element);
    fill(trouble);
    const body = read();
    if (body.init_params_overrides === null) return;
    element.setAttribute("aria-busy", "true");
    try {
      await save(body);
    } catch (error) {
      fill(trouble, showErrors(element, error) ? null : complaint(error));
      once.answered(error);
    } finally {
      element.removeAttribute("aria-busy");
    }
  }

  const element = h("form", { class: "routine-form", onsubmit, novalidate: true },
    field("name", "Name", name, "A slug: lower-case letters, digits, - and _."),
    cadence.element,
    h("h2", {}, "Parameters"),
    h("p", { class: "hint" }, schema.keys.length ? "Tick what this routine gives itself; the rest keeps the task’s default, also when that changes."
      : "The task takes no parameters."),
    params.element,
    h("h2", {}, "Secrets"),
    h("p", { class: "hint" }, "Stored encrypted, given to the step that names them, and never shown again."),
    hidden.element,
    h("h2", {}, "When a run has ended"),
    field("webhook_url", "Webhook URL", url, "It gets the run by POST. Empty: nobody is told."),
    sign.element,
    h("h2", {}, "Schedule"),
    field("catchup_window_seconds", "Catch-up window, in seconds", window_, "How old a slot may be to still run after an outage. Empty: an hour for hourly, 12 hours for the rest."),
    h("div", { class: "field", "data-field": "paused" }, h("label", { class: "toggle" }, paused, "Paused: no slot starts a run"), h("p", { class: "field-error" })),
    trouble);
  return { element, preview: cadence.preview, once };
}

/** The fields that are not as they were: the others keep their value, whoever changes them meanwhile. */
function differences(before, after) {
  const was = { ...before, catchup_window_seconds: before.catchup_window_seconds ?? null, cadence: plain(before.cadence) };
  const is = (name) => JSON.stringify(name === "cadence" ? plain(after.cadence) : after[name]);
  const changed = Object.keys(after).filter((name) => is(name) !== JSON.stringify(was[name]));
  // The mask says "as it was", unless another one beside it is new.
  return Object.fromEntries(changed.map((name) => [name, after[name]]));
}

function plain({ type, hour_utc = null, minute_utc = 0, day_of_week = null }) {
  return { type, hour_utc, minute_utc, day_of_week };
}
