/**
 * Build inputs for secrets. They are never shown: a stored secret can be kept, replaced or removed.
 */

import { button, h } from "../dom.js";
import { field } from "./fields.js";

export const MASK = "********";

/** Build the inputs of named secrets. @param {Record<string, string>} stored The mask of each stored secret, by name. */
export function secrets(stored) {
  const rows = h("div", {});
  const element = h("div", { class: "secrets field", "data-field": "secret_params" }, rows, h("p", { class: "field-error" }),
    button("Add a secret", () => {
      const added = fresh();
      rows.append(added);
      added.querySelector("input").focus();
    }, { class: "plain" }));
  for (const name of Object.keys(stored)) rows.append(kept(name));
  return {
    element,
    /** Return the values by name; a secret to keep has the mask as its value. */
    read() {
      return Object.fromEntries([...rows.children].map((row) => row.pair()).filter(([name]) => name));
    },
  };
}

function kept(name) {
  const row = h("div", { class: "secret", "data-field": `secret_params.${name}` },
    h("code", { class: "wrap" }, name), h("span", { class: "quiet" }, "stored, will be kept"),
    h("span", { class: "actions" },
      button("Replace", () => row.replaceWith(fresh(name)), { class: "plain", "aria-label": `Replace ${name}` }),
      button("Remove", () => row.remove(), { class: "plain", "aria-label": `Remove ${name}` })));
  row.pair = () => [name, MASK];
  return row;
}

function fresh(given = "") {
  const name = h("input", { value: given, autocomplete: "off", spellcheck: "false", readonly: Boolean(given), oninput: named });
  const value = h("input", { type: "password", autocomplete: "new-password" });
  const row = h("div", { class: "secret" }, h("label", {}, "Name", name), h("label", {}, "Value", value),
    button("Remove", () => row.remove(), { class: "plain" }), h("p", { class: "field-error" }));

  /** Follow the name, because error messages refer to the secret by it. */
  function named() {
    row.dataset.field = `secret_params.${name.value.trim()}`;
  }
  named();
  row.pair = () => [name.value.trim(), value.value];
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
