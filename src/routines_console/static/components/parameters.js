/**
 * Build the inputs of a routine's parameters: those that it sets, and those that each run takes from its slot.
 */

import { button, fill, giveWay, h } from "../dom.js";
import { label } from "../words.js";
import { overrides } from "./overrides.js";

const REFERENCES = ["slot.scheduled_for", "slot.date", "slot.local_time", "slot.previous", "slot.last_success", "slot.trigger"];

let made = 0;

/**
 * Build the inputs.
 *
 * @param {{name: string, default: any, type_hint: string}[]} keys The parameters that the task declares.
 * @param {{init_params_overrides: any, init_params_from_slot?: any}} given What the routine has now.
 */
export function parameters(keys, given) {
  const set = overrides(keys, given.init_params_overrides, "init_params_overrides");
  const taken = fromSlot(keys.map(({ name }) => name), given.init_params_from_slot ?? {});
  const element = h("div", {},
    h("p", { class: "hint" }, keys.length ? "Tick the parameters that this routine sets. The others follow the task’s defaults, even when those change."
      : "This task has no parameters."),
    set.element, taken.element);
  return {
    element,
    /** Return both fields; null, with messages, if an input is not valid. */
    read() {
      const [overridden, references] = [set.read(), taken.read()];
      return overridden && references && { init_params_overrides: overridden, init_params_from_slot: Object.keys(references).length ? references : null };
    },
    /** Return what can be read of both fields, without messages. */
    peek: () => ({ init_params_overrides: set.peek(), init_params_from_slot: taken.peek() }),
  };
}

/** Build rows of a parameter and what it takes from the slot. */
function fromSlot(names, given) {
  const rows = h("div", {});
  const element = h("div", { class: "from-slot field", "data-field": "init_params_from_slot" },
    rows, h("p", { class: "field-error" }),
    (names.length > 0 || Object.keys(given).length > 0) && button("Take a parameter from the slot", () => {
      const added = row(names, "", REFERENCES[0]);
      rows.append(added);
      added.querySelector("select").focus();
    }, { class: "plain", id: "add-from-slot" }));
  for (const [name, reference] of Object.entries(given)) rows.append(row(names, name, reference));

  const pairs = () => [...rows.children].map((each) => each.pair());
  return {
    element,
    /** Return the references by parameter; null, with messages, if a parameter is named twice or not at all. */
    read() {
      const values = Object.create(null);
      let isWhole = true;
      for (const each of rows.children) {
        const [name, reference] = each.pair();
        const fault = !name ? "Choose a parameter." : name in values ? `${name} is taken from the slot already.` : null;
        if (fault) {
          each.refuse(fault);
          isWhole = false;
        } else values[name] = reference;
      }
      return isWhole ? values : null;
    },
    peek: () => Object.fromEntries(pairs().filter(([name]) => name)),
  };
}

function row(names, name, reference) {
  made += 1;
  const error = h("p", { class: "field-error", id: `from-slot-${made}-error` });
  const options = (choices, chosen, text) => choices.map((each) => h("option", { value: each, selected: each === chosen }, text(each)));
  const offered = !name || names.includes(name) ? names : [...names, name];
  const parameter = h("select", { "aria-describedby": error.id, onchange: named },
    h("option", { value: "" }, "–"), options(offered, name, String));
  const value = h("select", {}, options(REFERENCES.includes(reference) ? REFERENCES : [...REFERENCES, reference], reference, label));
  const element = h("div", { class: "secret" }, h("label", {}, "Parameter", parameter), h("label", {}, "Takes", value),
    button("Remove", () => giveWay(element, element.closest(".from-slot")?.querySelector("#add-from-slot")), { class: "plain" }), error);

  /** Follow the name, because error messages refer to the parameter by it. */
  function named() {
    element.dataset.field = `init_params_from_slot.${parameter.value}`;
  }
  named();
  element.pair = () => [parameter.value, value.value];
  element.refuse = (text) => {
    fill(error, text);
    parameter.setAttribute("aria-invalid", "true");
  };
  return element;
}
