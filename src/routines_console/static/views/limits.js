/**
 * Show the limits of the collection and of its runs, and how much of each is used.
 */

import { h, section, title } from "../dom.js";
import { count, label, quantity } from "../words.js";

const NEARLY = 0.8;

/** Build the page. @param {import("../main.js").Context} context */
export async function limits({ session: { api, collection }, signal }) {
  const found = await api.get(["collections", collection, "limits"], {}, signal);
  const whole = found.limits.filter(({ use }) => use !== null);
  const reached = whole.filter((limit) => share(limit) >= 1);
  const body = h("div", {},
    h("div", { class: "headline" }, title(reached.length ? `${count(reached.length, "limit")} reached.` : "Within all limits.")),
    h("p", { class: "lede" }, "A request beyond a limit is answered 429 with the name of the limit. Only the operator of the service can change limits."),
    h("div", { class: "limits" },
      section("The collection", {}, h("ul", { class: "rows" }, whole.map(used), found.tasks.map(ofTask))),
      section("Each run", {}, h("ul", { class: "rows" }, found.limits.filter(({ use }) => use === null).map(ofRun)))));
  return { name: "Limits", body };
}

function used(limit) {
  const { use, value, unit } = limit;
  return row(limit.name, limit.description, value === null ? null : gauge(share(limit)),
    h("span", { class: "number" }, value === null ? `${quantity(use, unit)}, no limit` : part(use, value, unit)), changed(limit));
}

function ofTask({ task, max_concurrent_runs: value, use }) {
  return row(`${label("max_concurrent_runs")} of ${task}`, "Runs of this task that workers have claimed at once.", gauge(value ? use / value : 0),
    h("span", { class: "number" }, part(use, value, "runs")));
}

function ofRun(limit) {
  return row(limit.name, limit.description, null,
    h("span", { class: "number" }, limit.value === null ? "no limit" : quantity(limit.value, limit.unit)), changed(limit));
}

function row(name, description, ...columns) {
  return h("li", { class: "row limit" },
    h("div", { class: "who" }, h("span", { class: "name" }, label(name)), h("span", { class: "quiet" }, description)),
    h("div", { class: "amount" }, columns));
}

/** Put a use into words: "3 of 10 tasks", "1 KiB of 1 GiB". */
function part(use, value, unit) {
  return `${unit === "bytes" ? quantity(use, unit) : use.toLocaleString("en-GB")} of ${quantity(value, unit)}`;
}

/** Say that the operator has set another value than the default. */
function changed({ value, default: usual, unit }) {
  if (value === usual) return null;
  return h("span", { class: "quiet" }, `default: ${usual === null ? "no limit" : quantity(usual, unit)}`);
}

/** Draw how much is used; the text beside it says the same. @param {number} filled */
function gauge(filled) {
  const state = filled >= 1 ? "full" : filled >= NEARLY ? "nearly" : "";
  return h("span", { class: `gauge ${state}`, "aria-hidden": "true" }, h("i", { css: { "--part": Math.min(1, filled) } }));
}

/** Return the used part of a limit; 0 without a limit. */
function share({ use, value }) {
  if (value === null) return 0;
  return value === 0 ? 1 : use / value;
}
