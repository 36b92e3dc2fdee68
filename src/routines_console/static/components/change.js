/**
 * Show a change of the audit: who changed what, when, and what was before and after.
 */

import { differences } from "../differences.js";
import { h, link } from "../dom.js";
import { when } from "../time.js";
import { capital } from "../words.js";
import { difference } from "./difference.js";
import { json } from "./json-tree.js";

/**
 * Build a line of a list.
 *
 * @param {any} entry
 * @param {any} what What was changed; null where the page says so.
 * @param {any} [more] What can be done about it.
 */
export function change(entry, what, more) {
  return h("li", {},
    h("div", {}, when(entry.at)),
    h("div", { class: "story" },
      h("p", {}, h("strong", {}, actor(entry.actor)), ` ${entry.action} `, what ?? "it",
        entry.revision && h("span", { class: "quiet" }, `, revision ${entry.revision}`)),
      detail(entry)),
    h("div", { class: "end" }, more));
}

/** Say who made a change: "Key 7", "The scheduler", "Login alice". @param {string} name */
export function actor(name) {
  return capital(name === "scheduler" || name === "operator" ? `the ${name}` : name);
}

function detail({ action, before, after }) {
  if (action === "changed") return difference(differences(before, after));
  const whole = action === "created" ? after : before;
  return Object.keys(whole).length > 0 && h("details", {}, h("summary", {}, action === "created" ? "As it was created" : "As it was"), json(whole));
}

/**
 * Name what an entry is about, with a link where the console has a page of it.
 *
 * @param {any} entry
 */
export function subject({ kind, name, task_name: task, action }) {
  const isGone = action === "deleted";
  switch (kind) {
    case "routine": return ["the routine ", isGone ? `${task}/${name}` : link(["routines", task, name], {}, `${task}/${name}`)];
    case "task": return ["the task ", isGone ? name : link(["tasks", name], {}, name)];
    case "limit": return ["the limit ", link(["limits"], {}, name)];
    case "feed": return ["the calendar feed ", isGone ? name : link(["feeds"], {}, name)];
    case "environment": return "the environment";
    default: return `the ${kind} ${name}`;
  }
}
