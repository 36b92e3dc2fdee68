/**
 * What happened to a run, oldest first.
 */

import { empty, h } from "../dom.js";
import { clock } from "../time.js";

/** @param {any[]} events */
export function log(events) {
  if (!events.length) return empty("Nothing yet", "Each event of the run will be here.");
  return h("ol", { class: "log" }, events.map((event) => h("li", {},
    clock(event.at),
    h("span", { class: `event ${event.event.split("_").at(-1)}` }, event.event.replaceAll("_", " ")),
    h("span", { class: "story" }, event.step && h("strong", {}, event.step), event.try_number > 1 && ` try ${event.try_number}`,
      event.detail && h("span", { class: "quiet" }, ` ${event.detail}`)))));
}
