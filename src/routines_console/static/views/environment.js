/**
 * Show the names of the collection's environment variables, and set and remove them. Their values are sent and never read: the page holds
 * one only while it is typed.
 */

import { address, button, empty, fill, h, title } from "../dom.js";
import { confirm } from "../components/confirm.js";
import { complaint } from "../components/failure.js";
import { askForVariable } from "../components/variable.js";
import { count } from "../words.js";

/** Build the page. @param {import("../main.js").Context} context */
export async function environment({ session: { api, collection }, signal, say }) {
  const path = ["collections", collection, "environment"];
  const heading = title();
  const list = h("div", {});
  const trouble = h("div", {});

  function draw({ environment_variables: variables }) {
    const names = Object.keys(variables);
    fill(heading, names.length ? `${count(names.length, "variable")}.` : "No variables yet.");
    fill(list, names.length ? h("ul", { class: "rows" }, names.map(row))
      : empty("The environment is empty", "A variable that you add is there for the steps of all tasks."));
  }

  const patch = (name, value) => api.send("PATCH", path, { environment_variables: { [name]: value } });

  /** Set a variable, unless there is one of this name that the user wants to keep. Returns whether it was set. */
  async function set(name, value, isKnown) {
    const { environment_variables: now } = isKnown ? { environment_variables: {} } : await api.get(path);
    if (Object.hasOwn(now, name) && !await confirm(`Replace ${name}?`, "There is a variable of this name. Its value would be lost.", "Replace it", "Go back")) return false;
    draw(await patch(name, value));
    say(`${name} was saved.`);
    return true;
  }

  async function add() {
    fill(trouble);
    await askForVariable("", (name, value) => set(name, value, false), signal);
  }

  async function replace(name) {
    fill(trouble);
    await askForVariable(name, (_, value) => set(name, value, true), signal);
    document.getElementById(`replace-${name}`)?.focus();
  }

  async function remove(name) {
    fill(trouble);
    const lost = "Steps that read it fail from now on, unless their run or routine has a secret of this name. Its value cannot be brought back.";
    if (!await confirm(`Remove ${name}?`, lost, "Remove", "Keep it")) return;
    try {
      draw(await patch(name, null));
      say(`${name} was removed.`);
      heading.focus();
    } catch (error) {
      fill(trouble, complaint(error));
    }
  }

  function row(name) {
    const named = (text) => [text, h("span", { class: "unseen" }, ` ${name}`)];
    return h("li", { class: "row variable" },
      h("code", { class: "wrap" }, name), h("span", { class: "quiet" }, "stored, not shown"),
      h("div", { class: "actions" },
        button(named("Replace"), () => replace(name), { id: `replace-${name}` }),
        button(named("Remove"), () => remove(name), { class: "danger", id: `remove-${name}` })));
  }

  draw(await api.get(path, {}, signal));
  const body = h("div", {},
    h("div", { class: "headline" }, heading,
      h("div", { class: "actions" },
        h("a", { class: "button", href: address(["changes"], { kind: "environment" }) }, "Changes"),
        button("Add a variable", add, { class: "primary", id: "add-variable" }))),
    h("p", { class: "lede" }, "Steps of all tasks read a variable by the reference ", h("code", {}, "environment.NAME"),
      ". A secret of the same name that a run or routine has comes first. Values are stored encrypted, and never shown again."),
    trouble, list);
  return { name: "Environment", body };
}
