/**
 * Choose the time that a report covers; the choice is in the address.
 */

import { clockName } from "../clock.js";
import { address, h } from "../dom.js";
import { go } from "../router.js";
import { WINDOWS } from "../report.js";
import { complaint } from "./failure.js";
import { clearErrors, field, focusError, showError, showErrors } from "./fields.js";
import { momentField, momentForm } from "./moment.js";

/**
 * Build the form.
 *
 * @param {import("../report.js").Span & {since: string | null}} span What is shown.
 * @param {any} error Why it can't be shown; null if it is.
 */
export function spanForm(span, error) {
  const windows = WINDOWS.map(([name, text]) => h("a", {
    class: "chip", href: address(["report"], { since: name }), "aria-current": name === span.since ? "true" : null,
  }, text));
  const ends = { from: momentField("report-from", span.from), to: momentField("report-to", span.to) };

  function onsubmit(event) {
    event.preventDefault();
    clearErrors(form);
    const [from, to] = [ends.from.read(), ends.to.read()];
    if (!from) showError(form, "from", momentForm());
    if (!to) showError(form, "to", momentForm());
    if (from && to) return go(address(["report"], { from, to }));
    focusError(form);
  }

  const form = h("form", { onsubmit, novalidate: true, class: "side-by-side" },
    field("from", `From (${clockName()})`, ends.from.input), field("to", `To (${clockName()})`, ends.to.input), h("button", { id: "show" }, "Show"));
  const isPlaced = error && showErrors(form, error);
  return h("div", { class: "span-form" },
    h("nav", { "aria-label": "Times" }, windows), error && !isPlaced && complaint(error),
    h("details", { open: span.since === null || Boolean(error) }, h("summary", {}, "Other times"), form));
}
