/**
 * Show what steps can do, by activity, and insert one into the workflow.
 */

import { button, fill, h } from "../dom.js";
import { capital } from "../words.js";

/**
 * Build the list of activities with the button that inserts a step.
 *
 * @param {any[]} templates Of the service.
 * @param {(template: any, name: string) => void} insert
 */
export function stepTemplates(templates, insert) {
  const about = h("div", { class: "about-activity" });
  const choice = h("select", { id: "activity", onchange: shown }, [...new Set(templates.map(({ category }) => category))].map((category) =>
    h("optgroup", { label: capital(category) }, templates.filter((each) => each.category === category).map(({ activity_name: name }) => h("option", { value: name }, name)))));
  const name = h("input", { id: "step-name", autocomplete: "off", spellcheck: "false", autocapitalize: "off", placeholder: templates[0]?.activity_name, onkeydown: (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    take();
  } });
  const chosen = () => templates.find(({ activity_name: each }) => each === choice.value);

  function shown() {
    const template = chosen();
    name.placeholder = template.activity_name;
    fill(about, h("p", {}, template.description), list("Takes", template.parameters), list("Returns", template.outputs));
  }

  function take() {
    insert(chosen(), name.value.trim());
    name.value = "";
  }

  if (templates.length) shown();
  return h("div", { class: "step-templates" },
    h("div", { class: "field" }, h("label", { for: "activity" }, "Activity"), choice), about,
    h("div", { class: "field" }, h("label", { for: "step-name" }, "Name of the step"), name),
    button("Insert the step", take, { id: "insert-step" }));
}

function list(heading, items) {
  return items.length > 0 && [h("h3", {}, heading), h("dl", { class: "signature" }, items.map(({ name, type, required, description }) => h("div", {},
    h("dt", {}, h("code", { class: "wrap" }, name), " ", h("span", { class: "quiet" }, type, required && ", required")), description && h("dd", {}, description))))];
}
