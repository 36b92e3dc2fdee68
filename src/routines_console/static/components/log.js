/**
 * Show the events of a run, oldest first.
 */

import { empty, h } from "../dom.js";
import { clock } from "../time.js";

/** Build the list. @param {any[]} events */
export function log(events) {
  if (!events.length) return empty("Nothing yet", "The events of the run will be listed here.");
  return h("ol", { class: "log" }, events.map((event) => h("li", {},
    clock(event.at),
    h("span", { class: `event ${event.event.split("_").at(-1)}` }, event.event.replaceAll("_", " ")),
    h("span", { class: "story" }, event.step && h("strong", {}, event.step), event.try_number > 1 && ` attempt ${event.try_number}`,
      event.detail && h("span", { class: "quiet" }, ` ${event.detail}`)))));
}
