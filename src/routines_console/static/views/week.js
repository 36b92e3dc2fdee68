/**
 * Show the week ahead: how many slots fall in each hour, how much work they usually are, and in which minutes they come.
 */

import { address, fill, h, section, title } from "../dom.js";
import { isDisabled } from "../components/failure.js";
import { hours, MEASURES, workTime } from "../components/hours.js";
import { minutes } from "../components/minutes.js";
import { beginOf, DAY_MILLISECONDS, readWeek, stamp, today } from "../load.js";
import { note } from "../router.js";
import { utcDay, written } from "../time.js";
import { count } from "../words.js";

const WEEK_MILLISECONDS = 7 * DAY_MILLISECONDS;

/** Build the page. @param {import("../main.js").Context} context */
export async function week(context) {
  const begin = beginOf(context.query.from);
  try {
    return { name: "Week", body: page(context, await readWeek(context.session, begin, context.signal)) };
  } catch (error) {
    if (isDisabled(error)) return { name: "Week", body: h("div", {}, title("Routines are disabled.")) };
    throw error;
  }
}

function page(context, found) {
  const { by = "", at = "", from = "" } = context.query;
  let measure = MEASURES.some(([name]) => name === by) ? by : "";
  let chosen = found.hours.find((hour) => hour.at === at) ?? null;
  const table = h("div", {});
  const detail = minutes(context);

  function draw() {
    fill(table, hours(found, measure, chosen?.at ?? null, open));
  }

  function noted() {
    note(address(["week"], { from, by: measure, at: chosen?.at ?? "" }));
  }

  async function open(hour) {
    chosen = hour;
    noted();
    draw();
    await detail.open(hour, found);
    detail.element.scrollIntoView({ block: "nearest" });
  }

  const radios = MEASURES.map(([name, text]) => h("label", {},
    h("input", { type: "radio", name: "by", value: name, checked: name === measure, oninput: () => {
      measure = name;
      noted();
      draw();
    } }), h("span", {}, text)));

  draw();
  if (chosen) detail.open(chosen, found);
  return h("div", {},
    h("div", { class: "headline" }, title(headline(found)), h("div", { class: "actions" }, weeks(found.begin, measure))),
    h("p", { class: "lede" }, lede(found)),
    h("div", { class: "filters" }, h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, "Show"), radios)),
    h("div", { class: "columns wide" },
      h("div", {}, h("div", {}, table, legend(found))),
      h("aside", {}, section("Minutes", { class: "card" }, detail.element))));
}

function headline(found) {
  const total = sum(found, ({ slots, started, skipped }) => slots + started + skipped);
  return `${count(total, "slot")} ${found.begin === today() ? "in the week ahead" : `in the week from ${utcDay(found.days[0])}`}.`;
}

/** Say how much is to come, and when most of it does. */
function lede(found) {
  const coming = sum(found, ({ slots }) => slots);
  if (!coming) return "No slot of these days is to come: paused routines have none.";
  const seconds = sum(found, (hour) => hour.seconds);
  const most = Math.max(...found.hours.map(({ slots }) => slots));
  const busiest = found.hours.find(({ slots }) => slots === most);
  return [
    `${count(coming, "slot")} to come`, seconds ? `, about ${workTime(seconds)} of work for the workers` : "", ". ",
    `The busiest hour is ${written(busiest.at)} with ${count(most, "slot")}.`,
  ];
}

/** Link to the weeks around this one. */
function weeks(begin, by) {
  const to = (text, day) => h("a", { class: "button", href: address(["week"], { from: day === today() ? "" : stamp(day).slice(0, 10), by }) }, text);
  return [to("Week before", begin - WEEK_MILLISECONDS), begin !== today() && to("This week", today()), to("Week after", begin + WEEK_MILLISECONDS)];
}

function legend(found) {
  const named = found.days.flatMap((day) => found.named.get(day).map((label) => [day, label]));
  return h("ul", { class: "legend notes" },
    h("li", {}, "The darker, the more is to come. Hours that are past show what became of their slots."),
    h("li", {}, found.most === null ? h("span", {}, "No hour counts as overfull: the collection has ", h("a", { href: address(["limits"]) }, "no limit of concurrent runs"), ".")
      : [h("i", { class: "swatch overfull", "aria-hidden": "true" }), `Overfull: more work than ${count(found.most, "run")} at once can do.`]),
    named.map(([day, label]) => h("li", {}, h("span", { class: "mark-named" }, "◆"), ` ${utcDay(day)}: ${label}. Routines that exclude it do not fire.`)),
    found.unmarked > 0 && h("li", {}, `The days of ${count(found.unmarked, "more calendar")} are not marked.`));
}

function sum(found, of) {
  return found.hours.reduce((total, hour) => total + of(hour), 0);
}
