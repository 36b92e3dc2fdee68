/**
 * Write a task: its name, what it is for, and its workflow as JSON. What the service finds wrong is shown at its line.
 */

import { Problem } from "../api.js";
import { address, fill, h, link, title } from "../dom.js";
import { confirm } from "../components/confirm.js";
import { complaint } from "../components/failure.js";
import { clearErrors, field, focusError, showErrors } from "../components/fields.js";
import { jsonEditor } from "../components/json-editor.js";
import { stepTemplates } from "../components/step-templates.js";
import { writeJson } from "../json-text.js";
import { withStep } from "../new-step.js";

const BLANK = { name: "", description: "", workflow: { init_params: {}, step_configs: {}, steps: [] } };
const WORKFLOW = "workflow";

/** Build the page that creates a task. @param {import("../main.js").Context} context */
export async function newTask(context) {
  const { session: { api, collection } } = context;
  const form = await taskForm(context, BLANK, BLANK.workflow, async (body) => {
    const created = await api.send("POST", ["tasks", collection], body);
    context.say(`${created.name} was saved.`);
    context.done(address(["tasks", created.name]));
  });
  return { name: "New task", body: page(form, title("New task"), [link(["tasks"], {}, "Tasks"), " / new"], address(["tasks"])) };
}

/** Build the page that edits a task, or begins with an earlier version of it. @param {import("../main.js").Context} context */
export async function editTask(context) {
  const { session: { api, collection }, params, query, signal } = context;
  const path = ["tasks", collection, params.task];
  const [found, earlier] = await Promise.all([
    api.get(path, {}, signal), query.version ? api.get([...path, "versions", query.version], {}, signal) : null,
  ]);
  const form = await taskForm(context, found, earlier?.workflow ?? found.workflow, async (body) => {
    const changed = Object.fromEntries(Object.entries(body).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(found[name])));
    if (Object.keys(changed).length) {
      if (!await mayReplace(api, path, found)) return;
      await api.send("PUT", path, changed);
    }
    context.say(`${body.name} was saved.`);
    context.done(address(["tasks", body.name]));
  });
  const heading = title(`Edit ${found.name}`);
  const crumbs = [link(["tasks", found.name], {}, found.name), " / edit"];
  const body = page(form, heading, crumbs, address(["tasks", found.name]));
  if (earlier) heading.after(h("p", { class: "notice" }, `This is the workflow of version ${earlier.version}. Saving makes it the newest version.`));
  return { name: `Edit ${found.name}`, body };
}

/** Ask before replacing what someone else has saved since the form was opened. */
async function mayReplace(api, path, found) {
  const { updated_at: now } = await api.get(path);
  return now === found.updated_at || confirm("Replace a newer change?", "Someone has saved this task since you opened it. What you save replaces that; it stays among the versions.", "Save mine", "Go back to the form");
}

function page(form, heading, crumbs, back) {
  form.element.append(h("div", { class: "actions end" }, h("button", { class: "primary", id: "save" }, "Save task"), h("a", { class: "button", href: back }, "Cancel")));
  return h("div", { class: "form-page task-form" }, h("p", { class: "crumbs" }, crumbs), heading,
    h("div", { class: "columns" }, form.element, h("aside", {}, form.templates)));
}

async function taskForm({ session: { api }, signal, say }, given, workflow, save) {
  const { templates } = await api.get(["step-templates"], {}, signal);
  const name = h("input", { id: "name", value: given.name, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const description = h("input", { id: "description", value: given.description, autocomplete: "off" });
  const editor = jsonEditor(WORKFLOW, "Workflow", writeJson(workflow));
  const trouble = h("div", {});
  const untouched = editor.text();

  async function onsubmit(event) {
    event.preventDefault();
    if (element.hasAttribute("aria-busy")) return;
    clearErrors(element);
    fill(trouble);
    const read = editor.read();
    if (read === undefined) return;
    element.setAttribute("aria-busy", "true");
    try {
      // A workflow that nobody has touched is sent as it was read.
      await save({ name: name.value.trim(), description: description.value.trim(), workflow: editor.text() === untouched ? workflow : read });
    } catch (error) {
      if (!signal.aborted) show(error);
    } finally {
      element.removeAttribute("aria-busy");
    }
  }

  /** Show errors of the workflow at its lines, others at their fields, and what is left above the buttons. */
  function show(error) {
    const errors = error instanceof Problem ? error.errors : [];
    const isInside = ({ field: path }) => path === WORKFLOW || path.startsWith(`${WORKFLOW}.`);
    const others = errors.filter((each) => !isInside(each));
    const isPlaced = !others.length || showErrors(element, new Problem(error.status, { errors: others }));
    editor.show(errors.filter(isInside));
    if (others.length) focusError(element);
    if (!errors.length || !isPlaced) fill(trouble, complaint(error));
  }

  function insert(template, wish) {
    const current = editor.read();
    if (current === undefined) return say("Mend the workflow first: it is not JSON.");
    if (!canTakeSteps(current)) return say("A step needs an object with init_params, step_configs and steps.");
    const { name: added, workflow: longer } = withStep(current, template, templates, wish);
    editor.replace(writeJson(longer));
    editor.go(editor.lineOf(`${WORKFLOW}.step_configs.${added}`) ?? 1);
    say(`The step ${added} was inserted.`);
  }

  const element = h("form", { class: "routine-form", onsubmit, novalidate: true, "data-guarded": true },
    field("name", "Name", name, "Lower-case letters, digits, - and _, starting and ending with a letter or digit."),
    field("description", "Description", description, "What it is for, in a sentence."),
    editor.element, trouble);
  return { element, templates: h("section", { class: "card", "aria-label": "Insert a step" }, h("h2", {}, "Insert a step"), stepTemplates(templates, insert)) };
}

function canTakeSteps(workflow) {
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  return isObject(workflow) && isObject(workflow.init_params ?? {}) && isObject(workflow.step_configs ?? {}) && Array.isArray(workflow.steps ?? []);
}
