/**
 * List who changed what in the collection, newest first.
 */

import { address, empty, h, title } from "../dom.js";
import { change, subject } from "../components/change.js";
import { isDisabled } from "../components/failure.js";
import { pages } from "../components/pages.js";
import { note } from "../router.js";

const PAGE = 50;
const KINDS = [
  ["", "Everything"], ["routine", "Routines"], ["task", "Tasks"], ["calendar", "Calendars"], ["environment", "Environment"],
  ["key", "API keys"], ["limit", "Limits"], ["feed", "Calendar feeds"],
];

/** Build the page. @param {import("../main.js").Context} context */
export async function changes({ session: { api, collection }, query, signal }) {
  const asked = KINDS.some(([name]) => name === query.kind) ? query.kind : "";
  const kind = h("select", { id: "kind", onchange: () => {
    note(address(["changes"], { kind: kind.value }));
    list.load();
  } }, KINDS.map(([name, text]) => h("option", { value: name, selected: name === asked }, text)));

  let isOff = false;

  async function read(cursor) {
    try {
      const page = await api.page(["audit", collection], { kind: kind.value, limit: PAGE, cursor }, signal);
      return { items: page.items, next: page.cursor };
    } catch (error) {
      isOff = isDisabled(error);
      throw error;
    }
  }

  const nothing = () => empty("No changes", kind.value ? "Choose another kind, or everything." : "Every change of the collection is listed here.");
  const list = pages({ kind: "changes", read, row: (entry) => change(entry, subject(entry)), nothing, more: "Older changes" }, signal);
  await list.load();
  if (isOff) return { name: "Changes", body: h("div", {}, title("Routines are disabled.")) };
  const body = h("div", {},
    h("div", { class: "headline" }, title("Who changed what.")),
    h("p", { class: "lede" }, "Changes by every path are here: over HTTP, in psql, from the command line, and by the scheduler. Secrets are never shown."),
    h("div", { class: "filters small" }, h("label", { class: "unseen", for: "kind" }, "Kind"), kind),
    list.element);
  return { name: "Changes", body };
}
