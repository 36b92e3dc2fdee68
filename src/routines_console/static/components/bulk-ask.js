/**
 * Ask before something is done with several routines: show in words what would become of them.
 */

import { button, fill, h } from "../dom.js";
import { count } from "../words.js";
import { complaint } from "./failure.js";
import { someOf } from "./some.js";

/**
 * Open the dialog and return the plan that the user has agreed to; null if there is none.
 *
 * @param {import("../bulk/actions.js").Action} action
 * @param {number} total How many routines are selected.
 * @returns {Promise<import("../bulk/actions.js").Plan | null>}
 */
export function askForAll(action, total) {
  return new Promise((resolve) => {
    const leaving = new AbortController();
    const [progress, effects, buttons] = [h("p", { class: "quiet" }), h("div", { class: "effects", "aria-live": "polite" }), h("div", { class: "actions" })];
    let isKnown = false;
    const fields = h("div", { hidden: true }, action.fields);
    const form = h("form", { onsubmit, oninput: draw, novalidate: true }, h("h2", { id: "bulk-heading" }, action.heading), progress, effects, fields, buttons);
    const dialog = h("dialog", { class: "bulk-ask", "aria-labelledby": "bulk-heading", onclose: () => end(null) }, form);

    function draw() {
      if (!isKnown) return;
      const plan = action.plan();
      const isAny = plan.jobs.length > 0;
      fill(effects, h("ul", {}, plan.effects.map(([text, names]) => h("li", {}, someOf(text, names)))),
        isAny && plan.notes.map((note) => h("p", { class: "hint" }, note)));
      const stay = button(isAny ? "Change nothing" : "Close", () => end(null), { id: "bulk-stay", class: isAny && !plan.isFinal ? null : "primary" });
      const go = isAny && h("button", { id: "bulk-go", class: plan.isFinal ? "danger" : "primary" }, plan.verb);
      fill(buttons, plan.isFinal ? [stay, go] : [go, stay]);
    }

    function onsubmit(event) {
      event.preventDefault();
      const plan = isKnown ? action.plan() : null;
      if (plan?.jobs.length && (action.isValid?.(form) ?? true)) end(plan);
    }

    async function look() {
      fill(effects);
      fill(progress, "Looking at the runs…");
      fill(buttons, button("Close", () => end(null), { id: "bulk-stay" }));
      try {
        await action.look(leaving.signal, (read) => {
          fill(progress, `Looking at the runs: ${read.toLocaleString("en")} of ${count(total, "routine")}…`);
        });
        isKnown = true;
        progress.remove();
        fields.hidden = action.fields.every((each) => !each || each.hidden);
        draw();
        (form.querySelector("input:not([type=checkbox])") ?? form.querySelector("#bulk-stay"))?.focus();
      } catch (error) {
        if (leaving.signal.aborted) return;
        fill(progress);
        fill(effects, complaint(error));
        fill(buttons, button("Try again", look, { class: "primary" }), button("Close", () => end(null), { id: "bulk-stay" }));
      }
    }

    function end(plan) {
      resolve(plan);
      leaving.abort();
      // Closed before it is removed, so that the focus returns to where it was.
      dialog.close();
      dialog.remove();
    }

    document.body.append(dialog);
    dialog.showModal();
    look();
  });
}
