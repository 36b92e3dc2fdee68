/**
 * Show the events of a run, oldest first.
 */

import { empty, h } from "../dom.js";
import { clock, zone } from "../time.js";
import { cause, isLong } from "./cause.js";

/** Build the list. @param {any[]} events @param {any} run */
export function log(events, run) {
  if (!events.length) return empty("Nothing yet", "The events of the run will be listed here.");
  return [h("p", { class: "hint" }, `Times of day in ${zone(events[0].at)}.`), h("ol", { class: "log" }, events.map((event) => h("li", {},
    clock(event.at),
    h("span", { class: `event ${event.event.split("_").at(-1)}` }, event.event.replaceAll("_", " ")),
    h("div", { class: "story" }, event.step && h("strong", {}, event.step), event.try_number > 1 && ` attempt ${event.try_number}`,
      told(event, run)))))];
}

/**
 * Show the detail of an event. A child run was created by a step of its parent, though its trigger is the API's. The page says at
 * its top why the run failed, so the log does not repeat it.
 */
function told({ event, detail }, run) {
  if (event === "run_created" && run.parent_trajectory_id) detail = `by a step of run ${run.parent_trajectory_id}`;
  if (!detail || /_failed$/.test(event) && run.error?.includes(detail)) return null;
  return isLong(detail) ? cause(detail, "quiet") : h("span", { class: "quiet" }, ` ${detail}`);
}
