/**
 * Build inputs for secrets. They are never shown: a stored secret can be kept, replaced or removed.
 */

import { button, fill, giveWay, h } from "../dom.js";
import { field } from "./fields.js";

export const MASK = "********";

let made = 0;

/** Build the inputs of named secrets. @param {Record<string, string>} stored The mask of each stored secret, by name. */
export function secrets(stored) {
  const rows = h("div", {});
  const element = h("div", { class: "secrets field", "data-field": "secret_params" }, rows, h("p", { class: "field-error" }),
    button("Add a secret", () => {
      const added = fresh();
      rows.append(added);
      added.querySelector("input").focus();
    }, { class: "plain", id: "add-secret" }));
  for (const name of Object.keys(stored)) rows.append(kept(name));
  return {
    element,
    /** Return the values by name, with the mask for a secret to keep; null, with messages, if a row is not complete. */
    read() {
      const values = Object.create(null);
      let isWhole = true;
      for (const row of rows.children) {
        const [name, value] = row.pair();
        const fault = faultOf(name, value, name in values);
        if (fault) {
          row.refuse(fault);
          isWhole = false;
        } else if (name) values[name] = value;
      }
      return isWhole ? values : null;
    },
  };
}

/** Return what is wrong with a row, and with which of its inputs; null if nothing is. A row without any text is as good as none. */
function faultOf(name, value, isTaken) {
  if (!name) return value ? { input: "name", text: "Give the secret a name." } : null;
  if (isTaken) return { input: "name", text: `There is another secret ${name} above.` };
  return value ? null : { input: "value", text: "Enter a value, or remove the secret." };
}

function remove(row) {
  giveWay(row, row.closest(".secrets").querySelector("#add-secret"));
}

function kept(name) {
  const row = h("div", { class: "secret", "data-field": `secret_params.${name}` },
    h("code", { class: "wrap" }, name), h("span", { class: "quiet" }, "stored, will be kept"),
    h("span", { class: "actions" },
      button("Replace", () => {
        const replacing = fresh(name);
        row.replaceWith(replacing);
        replacing.querySelector("[type=password]").focus();
      }, { class: "plain", "aria-label": `Replace ${name}` }),
      button("Remove", () => remove(row), { class: "plain", "aria-label": `Remove ${name}` })));
  row.pair = () => [name, MASK];
  return row;
}

function fresh(given = "") {
  made += 1;
  const error = h("p", { class: "field-error", id: `secret-${made}-error` });
  const described = { autocomplete: "off", "aria-describedby": error.id };
  const name = h("input", { ...described, value: given, spellcheck: "false", readonly: Boolean(given), oninput: named });
  const value = h("input", { ...described, type: "password", autocomplete: "new-password" });
  const row = h("div", { class: "secret" }, h("label", {}, "Name", name), h("label", {}, "Value", value),
    button("Remove", () => remove(row), { class: "plain" }), error);

  /** Follow the name, because error messages refer to the secret by it. */
  function named() {
    row.dataset.field = `secret_params.${name.value.trim()}`;
  }
  named();
  row.pair = () => [name.value.trim(), value.value];
  row.refuse = ({ input, text }) => {
    fill(error, text);
    (input === "name" ? name : value).setAttribute("aria-invalid", "true");
  };
  return row;
}

/**
 * Build the input of the secret that signs a webhook.
 *
 * @param {boolean} isStored
 */
export function webhookSecret(isStored) {
  const choice = h("select", { id: "webhook-secret-choice", onchange: () => { input.hidden = choice.value !== "new"; } },
    isStored && h("option", { value: "keep" }, "Keep the stored secret"),
    h("option", { value: "none" }, "None: webhooks are not signed"),
    h("option", { value: "new" }, isStored ? "Replace it" : "Set a secret"));
  const input = h("input", { type: "password", autocomplete: "new-password", hidden: true, "aria-label": "New webhook secret", id: "webhook-secret" });
  const element = field("webhook_secret", "Webhook secret", choice);
  choice.after(input);
  return {
    element,
    read: () => ({ keep: MASK, none: null, new: input.value })[choice.value],
  };
}
