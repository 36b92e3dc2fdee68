/**
 * Show the labels of a run, and a form to add one.
 */

import { fill, h } from "../dom.js";
import { complaint } from "./failure.js";
import { showErrors } from "./fields.js";

/**
 * Build the list and the form.
 *
 * @param {import("../main.js").Context} context
 * @param {any} run
 */
export function labels({ session: { api, collection }, params: { task } }, run) {
  const list = h("ul", { class: "labels" });
  const trouble = h("div", {});
  const key = h("input", { id: "label-key", name: "key", required: true, autocomplete: "off" });
  const value = h("input", { id: "label-value", name: "value", autocomplete: "off" });

  function draw(found) {
    fill(list, found.length ? found.map(label) : h("li", { class: "quiet" }, "none"));
  }

  async function onsubmit(event) {
    event.preventDefault();
    fill(trouble);
    try {
      const body = { key: key.value, value: value.value, author: "console" };
      const labelled = await api.send("POST", ["trajectory", collection, task, run.trajectory_id, "labels"], body);
      draw(labelled.labels);
      form.reset();
      key.focus();
    } catch (error) {
      fill(trouble, showErrors(form, error) ? null : complaint(error));
    }
  }

  const form = h("form", { onsubmit, novalidate: true, class: "label-form" },
    h("label", { for: "label-key" }, "Key"), key, h("label", { for: "label-value" }, "Value"), value, trouble, h("button", {}, "Add label"));
  draw(run.labels);
  return h("div", {}, list, form);
}

function label({ key, value, author }) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return h("li", { title: author ? `by ${author}` : null }, h("span", { class: "quiet" }, key), " ", text);
}
