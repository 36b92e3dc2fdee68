/**
 * List the backfills of a routine, newest first: how far each has come, what it waits for, and a button that cancels it.
 */

import { button, fill, h, section } from "../dom.js";
import { ago, at } from "../time.js";
import { count, KINDS, ORDERS, REPROCESS } from "../words.js";
import { actor } from "./change.js";
import { confirm } from "./confirm.js";
import { complaint } from "./failure.js";
import { pages } from "./pages.js";
import { badge } from "./strip.js";

const PAGE = 5;
/** Its counts of runs, those first that need a look. */
const COUNTS = ["failed", "cancelled", "archived", "completed"];

/**
 * Build the list; call `load` to fill it. It is hidden while the routine has none.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The path of the routine's backfills in the API.
 */
export function backfills({ session: { api }, say, signal }, path) {
  const trouble = h("div", {});
  let isAsking = false;
  /** Those read so far, newest first. @type {any[]} */
  let known = [];

  async function read(cursor) {
    element.hidden = false;
    const page = await api.page(path, { limit: PAGE, cursor }, signal);
    known = cursor === null ? page.items : [...known, ...page.items];
    element.hidden = !known.length;
    return { items: page.items, next: page.cursor };
  }

  async function cancel(id, pressed) {
    fill(trouble);
    isAsking = true;
    try {
      if (!await confirm(`Cancel backfill ${id}?`, CONSEQUENCE, "Cancel backfill", "Let it go on")) return;
      pressed.disabled = true;
      await api.send("DELETE", [...path, id]);
      say(`Backfill ${id} was cancelled.`);
      await list.load();
      show(id);
    } catch (error) {
      pressed.disabled = false;
      fill(trouble, complaint(error));
    } finally {
      isAsking = false;
    }
  }

  const list = pages({ kind: "backfills", read, row: (each) => row(each, cancel), nothing: () => null, more: "Older backfills" }, signal);
  const element = section("Backfills", { hidden: true }, trouble, list.element);
  return {
    element,
    load: () => list.load(),
    /** Read the list again, unless the user is asked about one of them. */
    refresh: async () => { if (!isAsking) await list.refresh(); },
    /** Return whether one of them goes on. */
    isActive: () => known.some(({ status }) => status === "active"),
    show,
  };
}

const CONSEQUENCE = "It starts no more runs, and those that no worker has begun are cancelled. Runs in progress go on.";

/** Move the focus to a backfill. @param {number} id */
function show(id) {
  document.getElementById(`backfill-${id}`)?.focus();
}

function row(each, cancel) {
  const { id, status, from, to, reprocess, order, max_active: most, held_by: held } = each;
  return h("li", {},
    h("strong", { id: `backfill-${id}`, tabindex: "-1" }, `Backfill ${id}`),
    h("div", {}, state(each)),
    h("div", { class: "story" },
      h("p", {}, "From ", at(from), " to ", at(to)),
      h("p", { class: "quiet" }, `${REPROCESS[reprocess]}. ${ORDERS[order]}, ${most} at once. `, actor(each.created_by), ", ", ago(each.created_at), "."),
      status === "active" && held && h("p", { class: "held" }, `Waits: ${held}.`),
      h("p", { class: "legend" }, tally(each))),
    status === "active" && h("div", { class: "end" }, button(["Cancel", h("span", { class: "unseen" }, ` backfill ${id}`)],
      (event) => cancel(id, event.currentTarget), { class: "danger", id: `cancel-backfill-${id}` })));
}

function state({ status, failed, held_by: held }) {
  if (status === "active") return held ? badge("pending", "Waits") : badge("running", "Goes on");
  if (status === "cancelled") return badge("cancelled");
  return failed ? badge("failed", "Done, with failures") : badge("completed", "Done");
}

/** Count its runs by what became of them, and the slots that it left as they were. */
function tally({ active, left, ...counts }) {
  return [
    ...COUNTS.filter((name) => counts[name]).map((name) => badge(name, `${counts[name].toLocaleString("en")} ${KINDS[name].toLowerCase()}`)),
    active > 0 && badge("running", `${count(active, "run")} not ended`),
    left > 0 && h("span", {}, `${count(left, "slot")} left as ${left === 1 ? "it was" : "they were"}`),
  ];
}
