/**
 * Show the hours of a week as a table, days beside each other: the darker an hour, the more falls in it. A number says the same.
 */

import { button, h } from "../dom.js";
import { HOUR_MILLISECONDS } from "../load.js";
import { now, span, utcDay, written } from "../time.js";
import { count } from "../words.js";
import { roving } from "./roving.js";

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const DAY_SECONDS = 86_400;
/** What the cells show. */
export const MEASURES = [["", "Slots"], ["minutes", "Worker minutes"]];

/**
 * Build the table.
 *
 * @param {import("../load.js").Week} week
 * @param {string} measure
 * @param {string | null} chosen The hour that is open.
 * @param {(hour: import("../load.js").Hour) => void} choose
 */
export function hours(week, measure, chosen, choose) {
  const most = Math.max(...week.hours.map((hour) => amount(hour, measure)), 1);
  const isNamed = (day) => Boolean(week.named.get(day)?.length);
  const rows = Array.from({ length: 24 }, (_, hour) => h("tr", {},
    h("th", { scope: "row" }, `${String(hour).padStart(2, "0")}`, h("span", { class: "minute" }, ":00")),
    week.days.map((day, index) => cell(week.hours[index * 24 + hour], day))));
  const element = h("table", { class: "week" },
    h("caption", { class: "unseen" }, "Slots by hour, in UTC. The arrow keys move between hours, Enter opens one."),
    h("thead", {}, h("tr", {}, h("td", {}, "UTC"), week.days.map(head))),
    h("tbody", {}, rows));
  const focus = roving(element, "button");
  focus.settle(element.querySelector("[aria-pressed=true], [aria-current]"));

  function head(day) {
    const [name, date, month] = utcDay(day).split(" ");
    return h("th", { scope: "col" }, h("span", {}, name), " ", h("span", { class: "date" }, date, h("span", { class: "month" }, ` ${month}`)),
      isNamed(day) && h("span", { class: "mark-named" }, " ◆", h("span", { class: "unseen" }, " in a calendar")));
  }

  function cell(hour, day) {
    const isPast = Date.parse(hour.at) + HOUR_MILLISECONDS <= now();
    const isNow = !isPast && Date.parse(hour.at) <= now();
    const isOver = week.isOverfull(hour);
    const kind = [isPast && "past", isOver && "overfull", isNamed(day) && "named"].filter(Boolean).join(" ");
    const pressed = button([shown(hour, measure, isPast), h("span", { class: "unseen" }, ` ${words(hour, isOver)}`)], () => choose(hour), {
      id: `hour-${hour.at.slice(0, 13)}`, "aria-pressed": String(hour.at === chosen), "aria-current": isNow ? "time" : null,
      css: { "--heat": (amount(hour, measure) / most).toFixed(3) },
    });
    return h("td", { class: kind || null }, pressed);
  }

  return element;
}

/** Return what decides how dark an hour is: nothing that is past does. */
function amount({ slots, seconds }, measure) {
  return measure === "minutes" ? seconds : slots;
}

function shown(hour, measure, isPast) {
  const total = hour.slots + hour.started + hour.skipped;
  if (!total) return h("span", { class: "nothing", "aria-hidden": "true" }, "·");
  if (measure !== "minutes") return COMPACT.format(total);
  if (isPast || !hour.slots) return h("span", { class: "nothing", "aria-hidden": "true" }, "–");
  if (!hour.seconds) return "?";
  return hour.seconds < 60 ? "<1" : COMPACT.format(Math.round(hour.seconds / 60));
}

/** Say when an hour is and what is in it. */
function words(hour, isOver) {
  const parts = [
    hour.slots && `${count(hour.slots, "slot")} to come${hour.seconds ? `, about ${workTime(hour.seconds)} of work` : ""}`,
    hour.started && `${hour.started.toLocaleString("en")} started`,
    hour.skipped && `${hour.skipped.toLocaleString("en")} skipped`,
    isOver && "overfull",
  ].filter(Boolean);
  return `${written(hour.at)}: ${parts.join(", ") || "no slots"}`;
}

/** Put work into words, in hours however many: "12 min", "3 h 20 min", "303 h". @param {number} seconds */
export function workTime(seconds) {
  if (seconds < 60) return span(Math.max(1, Math.round(seconds)));
  if (seconds < DAY_SECONDS) return span(Math.round(seconds / 60) * 60);
  return `${Math.round(seconds / 3600).toLocaleString("en")} h`;
}
