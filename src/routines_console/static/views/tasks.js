/**
 * List the tasks of the collection.
 */

import { empty, h, link, title } from "../dom.js";
import { ago } from "../time.js";
import { count } from "../words.js";

/** Build the page. @param {import("../main.js").Context} context */
export async function tasks({ session: { api, collection }, signal }) {
  const found = await api.get(["tasks", collection, ""], {}, signal);
  const body = h("div", {},
    h("div", { class: "headline" }, title(found.length ? `${count(found.length, "task")}.` : "No tasks yet."),
      h("div", { class: "actions" }, link(["environment"], { class: "button" }, "Environment"), link(["new", "task"], { class: "button" }, "New task"))),
    h("p", { class: "lede" }, "A task is a named workflow. Routines run it on a schedule, and every run is kept."),
    found.length ? h("ul", { class: "rows tasks" }, found.map(row))
      : empty("Write the first one", link(["new", "task"], {}, "Write a task"), " here, POST it to ", h("code", {}, `/api/v1/tasks/${collection}`), ", or keep tasks in files and apply them: ",
        h("code", {}, "routines tasks apply FILE"), "."));
  return { name: "Tasks", body };
}

function row(task) {
  const steps = task.workflow.steps ?? [];
  const params = Object.keys(task.workflow.init_params ?? {});
  return h("li", { class: "row" },
    h("div", { class: "who" }, link(["tasks", task.name], { class: "name" }, task.name), h("span", { class: "quiet" }, task.description)),
    h("div", {}, count(steps.length, "step"), ", ", count(params.length, "parameter")),
    h("div", { class: "quiet" }, "changed ", ago(task.updated_at)));
}
