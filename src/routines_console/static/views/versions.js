/**
 * List the versions of a task, and show line by line what changed between two of them.
 */

import { address, fill, h, link, section, title } from "../dom.js";
import { actor } from "../components/change.js";
import { complaint } from "../components/failure.js";
import { lineDiff } from "../components/line-diff.js";
import { inOrderOf } from "../json-text.js";
import { note } from "../router.js";
import { when } from "../time.js";
import { count } from "../words.js";

const MOST = 100;

/** Build the page. @param {import("../main.js").Context} context */
export async function versions(context) {
  const { session: { api, collection }, params: { task }, signal } = context;
  const path = ["tasks", collection, task, "versions"];
  const { items, cursor } = await api.page(path, { limit: MOST }, signal);
  const [newest] = items;
  const body = h("div", { class: "versions" },
    h("p", { class: "crumbs" }, link(["tasks"], {}, "Tasks"), " / ", link(["tasks", task], {}, task), " / versions"),
    h("div", { class: "headline" }, title(`${count(items.length, "version")} of ${task}.`), h("div", { class: "actions" }, link(["tasks", task, "edit"], { class: "button", id: "edit" }, "Edit task"))),
    h("p", { class: "lede" }, "Each saved workflow is a version. A run keeps the one that it started with, and the next run takes the newest."),
    items.length > 1 && section("Compare", {}, compare(context, path, items)),
    section("All versions", {},
      h("ol", { class: "changes" }, items.map((each, index) => row(each, items[index + 1], task, each === newest))),
      cursor && h("p", { class: "hint" }, `These are the newest ${MOST}.`)));
  return { name: `Versions of ${task}`, body };
}

function row({ version, saved_at: time, actor: who }, before, task, isNewest) {
  return h("li", {},
    h("div", {}, when(time)),
    h("div", { class: "story" }, h("strong", {}, `Version ${version}`), who && ` by ${actor(who)}`, isNewest && h("span", { class: "quiet" }, ", the newest"),
      before && [" · ", h("a", { href: address(["tasks", task, "versions"], { from: before.version, to: version }) }, "What changed", h("span", { class: "unseen" }, ` in version ${version}`))]),
    h("div", { class: "end" }, !isNewest && h("a", { class: "button", href: address(["tasks", task, "edit"], { version }) }, "Edit from here", h("span", { class: "unseen" }, ` version ${version}`))));
}

/** Build the choice of two versions with what differs between them; it loads itself. */
function compare({ session: { api }, params: { task }, query, signal }, path, items) {
  const numbers = items.map(({ version }) => String(version));
  const known = (asked, otherwise) => numbers.includes(asked) ? asked : otherwise;
  const chooser = (id, given) => h("select", { id, onchange: show }, numbers.map((each, index) =>
    h("option", { value: each, selected: each === given }, `Version ${each}${index === 0 ? ", the newest" : ""}`)));
  const from = chooser("from", known(query.from, numbers[1]));
  const to = chooser("to", known(query.to, numbers[0]));
  const place = h("div", { "aria-live": "polite" });
  let asked = 0;

  async function show() {
    asked += 1;
    const mine = asked;
    note(address(["tasks", task, "versions"], { from: from.value, to: to.value }));
    try {
      const [before, after] = await Promise.all([from, to].map(async ({ value }) => (await api.get([...path, value], {}, signal)).workflow));
      if (mine === asked) fill(place, lineDiff(linesOf(inOrderOf(before, after)), linesOf(after)));
    } catch (error) {
      if (mine === asked && !signal.aborted) fill(place, complaint(error));
    }
  }

  show();
  return [
    h("div", { class: "filters small" }, h("label", { for: "from" }, "From"), from, h("label", { for: "to" }, "to"), to),
    place,
  ];
}

/** Write a workflow with each value on its own line, so that a change moves no others to new lines. */
function linesOf(workflow) {
  return JSON.stringify(workflow, null, 2);
}
