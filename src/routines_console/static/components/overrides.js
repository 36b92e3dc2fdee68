/**
 * Build inputs for the parameters of a task, each of the parameter's type; those left unticked keep their default.
 */

import { fill, h } from "../dom.js";
import { showError } from "./fields.js";

let made = 0;

/**
 * Build the inputs.
 *
 * @param {{name: string, default: any, type_hint: string}[]} keys The parameters that the task declares.
 * @param {Record<string, any>} given The current overrides.
 * @param {string} path The name of the field in the request.
 */
export function overrides(keys, given, path) {
  const undeclared = Object.keys(given).filter((name) => !keys.some((key) => key.name === name));
  const rows = [
    ...keys.map((key) => row(key, given, path, true)),
    ...undeclared.map((name) => row({ name, default: null, type_hint: "object" }, given, path, false)),
  ];
  const element = h("div", { class: "overrides", "data-field": path }, rows.map(({ element: each }) => each), h("p", { class: "field-error" }));
  return {
    element,
    /** Return the overrides, or null if an input is not valid, with a message next to it. */
    read() {
      const values = Object.create(null);
      let isWhole = true;
      for (const each of rows) {
        if (!each.isOn()) continue;
        const value = each.read();
        if (value === undefined) {
          showError(element, `${path}.${each.name}`, each.rule);
          isWhole = false;
        } else values[each.name] = value;
      }
      return isWhole ? values : null;
    },
    /** Return those overrides that are valid, without messages. */
    peek() {
      const read = rows.filter((each) => each.isOn()).map((each) => [each.name, each.read()]);
      return Object.fromEntries(read.filter(([, value]) => value !== undefined));
    },
  };
}

function row(key, given, path, isDeclared) {
  made += 1;
  const id = `override-${made}`;
  const isGiven = Object.hasOwn(given, key.name);
  const value = isGiven ? given[key.name] : key.default;
  const kind = isGiven && !fits(value, key.type_hint) ? "object" : key.type_hint;
  const control = input(kind, value, id);
  const toggle = h("input", { type: "checkbox", id: `${id}-on`, checked: isGiven, onchange: turned });
  const error = h("p", { class: "field-error", id: `${id}-error` });
  const place = h("div", { class: "value" });
  const fallback = h("code", { class: "quiet wrap" }, key.default === null ? "null" : shown(key.default));

  function turned() {
    fill(place, toggle.checked ? control.element : fallback);
    fill(error);
  }
  turned();

  const element = h("div", { class: "override", "data-field": `${path}.${key.name}` },
    h("label", { class: "toggle" }, toggle, h("code", { id: `${id}-name` }, key.name), h("span", { class: "quiet" }, isDeclared ? key.type_hint : "no longer declared")),
    place, error);
  control.element.setAttribute("aria-labelledby", `${id}-name`);
  control.element.setAttribute("aria-describedby", `${id}-error`);
  return { name: key.name, element, isOn: () => toggle.checked, read: control.read, rule: control.rule };
}

function input(kind, value, id) {
  switch (kind) {
    case "boolean": {
      const element = h("select", { id }, [true, false].map((each) => h("option", { value: each, selected: each === value }, String(each))));
      return { element, read: () => element.value === "true", rule: "" };
    }
    case "integer":
    case "number": {
      const element = h("input", { id, type: "number", step: kind === "integer" ? "1" : "any", value });
      return { element, read: () => number(element.value, kind), rule: kind === "integer" ? "must be a whole number" : "must be a number" };
    }
    case "array":
    case "object": {
      const element = h("textarea", { id, rows: 3, spellcheck: "false", class: "code" }, JSON.stringify(value, null, 2) ?? "");
      return { element, read: () => parsed(element.value), rule: "must be JSON" };
    }
    default: {
      const isLong = typeof value === "string" && (value.includes("\n") || value.length > 60);
      const element = isLong ? h("textarea", { id, rows: 3 }, value) : h("input", { id, value: value ?? "" });
      return { element, read: () => element.value, rule: "" };
    }
  }
}

function number(text, kind) {
  const value = text === "" ? NaN : Number(text);
  return Number.isNaN(value) || (kind === "integer" && !Number.isInteger(value)) ? undefined : value;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function fits(value, hint) {
  switch (hint) {
    case "array": return Array.isArray(value);
    case "object": return value !== null && typeof value === "object" && !Array.isArray(value);
    case "integer": return Number.isInteger(value);
    default: return typeof value === hint;
  }
}

function shown(value) {
  return typeof value === "string" ? value || "empty" : JSON.stringify(value);
}
