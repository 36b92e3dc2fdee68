/**
 * Show a routine in a list: its name, cadence, last outcomes and next slot.
 */

import { button, h, link } from "../dom.js";
import { setSeen } from "../seen.js";
import { ago } from "../time.js";
import { cadenceWords } from "../words.js";
import { badge, strip, unknownStrip } from "./strip.js";

/**
 * Build the row.
 *
 * @param {import("../fleet.js").Entry} entry
 * @param {any} recent Its latest outcomes, if they are known.
 * @param {Node} box Selects it.
 */
export function row({ routine, health }, recent, box) {
  const last = health.kind ? badge(health.kind, health.words) : h("span", { class: "quiet" }, health.words);
  return h("li", { class: `row ${health.group} ${health.isSeen ? "seen" : ""}` },
    box,
    h("div", { class: "who" },
      link(["routines", routine.task_name, routine.name], { id: `routine-${routine.id}`, class: "name" }, routine.name),
      h("span", { class: "quiet" }, routine.task_name)),
    h("div", { class: "cadence" }, cadenceWords(routine.cadence)),
    h("div", { class: "slots", "data-strip": routine.id }, recent ? strip(recent.outcomes, routine) : unknownStrip()),
    h("div", { class: "last" },
      health.run ? link(["runs", routine.task_name, health.run], { class: "to-run" }, last) : last,
      health.at && h("span", { class: "quiet" }, ago(health.at))),
    h("div", { class: "next" }, next(routine), health.group === "attention" && seenToggle(routine, health)),
    health.causes.map((cause) => h("p", { class: "cause", title: cause }, cause)));
}

/** Build the button by which the user says that this trouble is known. The list hears of it by the event `seen`. */
function seenToggle(routine, health) {
  const isPressed = Boolean(health.isSeen);
  return button(["Seen", h("span", { class: "unseen" }, ` ${routine.name}`)], ({ currentTarget }) => {
    setSeen(routine, health, !isPressed);
    currentTarget.dispatchEvent(new CustomEvent("seen", { bubbles: true }));
  }, { class: "plain seen-toggle", id: `seen-${routine.id}`, "aria-pressed": String(isPressed) });
}

function next(routine) {
  if (routine.paused_until) return h("span", { class: "quiet" }, "paused, ends ", ago(routine.paused_until));
  if (routine.paused) return h("span", { class: "quiet" }, "paused");
  if (!routine.next_run_at) return h("span", { class: "quiet" }, routine.cadence.type === "manual" ? "manual" : "none");
  return [h("span", { class: "label" }, "Next "), ago(routine.next_run_at)];
}
