/**
 * Ask which slots of the past to fill, show what would become of each, and start the backfill.
 */

import { IdempotencyKeys } from "../api.js";
import { clockName } from "../clock.js";
import { button, fill, h } from "../dom.js";
import { stamp } from "../load.js";
import { now } from "../time.js";
import { watch } from "../unsaved.js";
import { count, ORDERS, REPROCESS } from "../words.js";
import { complaint } from "./failure.js";
import { clearErrors, field, focusError, numberOrNull, showError, showErrors } from "./fields.js";
import { momentField, momentForm } from "./moment.js";
import { fatesOf } from "./plan.js";

const MOST_AT_ONCE = 20;

/**
 * Build the form. Whatever is changed in it takes back what it has shown, so that only that is started.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The path of the routine's backfills in the API.
 * @param {{from: string, to: string, what: string, isOpen: boolean, isPaused: boolean}} given What it begins with.
 * @param {(made: any) => Promise<void>} started Called with the new backfill.
 */
export function backfill({ session: { api }, params: { task }, say }, path, given, started) {
  const [from, to] = [momentField("fill-from", given.from), momentField("fill-to", given.to)];
  const [what, order] = [choice("fill-what", REPROCESS, given.what), choice("fill-order", ORDERS)];
  const most = h("input", { id: "fill-most", type: "number", min: 1, max: MOST_AT_ONCE, value: 1 });
  const [trouble, plan] = [h("div", {}), h("div", { id: "fill-plan", "aria-live": "polite" })];
  let keys = new IdempotencyKeys();
  let changes = 0;

  function changed() {
    changes += 1;
    fill(plan);
  }

  /** Do something unless the form is at it already, and show errors next to their fields. */
  async function working(work) {
    if (form.hasAttribute("aria-busy")) return;
    form.setAttribute("aria-busy", "true");
    clearErrors(form);
    fill(trouble);
    try {
      await work();
    } catch (error) {
      keys.answered(error);
      fill(trouble, showErrors(form, error) ? null : complaint(error));
    } finally {
      form.removeAttribute("aria-busy");
    }
  }

  /** Return what is asked for; null if a time is not one. A backfill of all slots until now ends at this moment. */
  function asked() {
    const [begin, end] = [from.read(), to.read()];
    if (!begin) showError(form, "from", momentForm());
    if (end === undefined) showError(form, "to", momentForm());
    if (!begin || end === undefined) {
      focusError(form);
      return null;
    }
    return { from: begin, to: end ?? stamp(now()), reprocess: what.value, max_active: numberOrNull(most), order: order.value };
  }

  const preview = () => working(async () => {
    const body = asked();
    if (!body) return;
    const before = changes;
    const found = await api.send("POST", path, { ...body, dry_run: true });
    if (before === changes) fill(plan, shown(found, body));
  });

  const start = (body) => working(async () => {
    const made = await api.send("POST", path, body, keys.keyFor(body));
    // The same range may be filled once more.
    keys = new IdempotencyKeys();
    fill(plan);
    element.open = false;
    watch(element);
    say(`Backfill ${made.id} was started.`);
    await started(made);
  });

  function shown(found, body) {
    const runs = found.run + found.rerun;
    return fatesOf(found, task, runs > 0 && [
      given.isPaused && h("p", { class: "notice" }, "The routine is paused: the backfill waits until it is resumed."),
      h("div", { class: "actions" }, button(`Start ${count(runs, "run")}`, () => start(body), { class: "primary", id: "fill-start" })),
    ]);
  }

  const form = h("form", { onsubmit: (event) => { event.preventDefault(); preview(); }, oninput: changed, novalidate: true, "data-guarded": true },
    h("div", { class: "side-by-side" },
      field("from", `From (${clockName()})`, from.input), field("to", `To (${clockName()})`, to.input, "Slots before this time. Empty means now.")),
    field("reprocess", "What to run", what),
    h("div", { class: "side-by-side" },
      field("max_active", "At once, at most", most, `From 1 to ${MOST_AT_ONCE}.`), field("order", "Order", order)),
    h("p", { class: "hint apart" }, "The schedule comes first: no run is started while another run of the routine is active, or shortly before a slot."),
    trouble,
    h("div", { class: "actions" }, h("button", { id: "fill-preview" }, "See what would happen")),
    plan);
  const element = h("details", { class: "rerun backfill", id: "fill", open: given.isOpen }, h("summary", {}, "Fill these gaps"), form);
  return element;
}

/** Build a choice of one of these, by default the first. */
function choice(id, texts, chosen) {
  return h("select", { id }, Object.entries(texts).map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
