/**
 * Show in which minutes of an hour the slots fall, and what the same hour of the week before became.
 */

import { partsOf } from "../clock.js";
import { facts, fill, h } from "../dom.js";
import { DAY_MILLISECONDS, HOUR_MILLISECONDS, readLoad, stamp } from "../load.js";
import { between, written } from "../time.js";
import { count } from "../words.js";
import { complaint } from "./failure.js";
import { workTime } from "./hours.js";
import { MINUTES, minuteBars } from "./minute-bars.js";

const MINUTE_MILLISECONDS = 60_000;

/**
 * Build the place where an hour is opened.
 *
 * @param {import("../main.js").Context} context
 */
export function minutes({ session, signal }) {
  const said = h("div", { "aria-live": "polite" }, h("p", { class: "quiet" }, "Choose an hour to see its minutes."));
  const rest = h("div", {});
  const element = h("div", { class: "minutes" }, said, rest);
  let asked = 0;

  return {
    element,
    /**
     * Open an hour. A late answer does not replace that to a newer one.
     *
     * @param {import("../load.js").Hour} hour
     * @param {import("../load.js").Week} week
     */
    async open(hour, week) {
      asked += 1;
      const mine = asked;
      const begin = Date.parse(hour.at);
      const before = begin - 7 * DAY_MILLISECONDS;
      try {
        // One after the other: a collection plans one at a time.
        const buckets = await readLoad(session, begin, begin + HOUR_MILLISECONDS, "minute", signal);
        const [earlier] = await readLoad(session, before, before + HOUR_MILLISECONDS, "hour", signal);
        if (mine !== asked) return;
        fill(said, heading(hour), h("p", { class: "sentence" }, sentence(buckets)));
        fill(rest, shown(hour, week, buckets, earlier));
      } catch (error) {
        if (mine !== asked || signal.aborted) return;
        fill(said, heading(hour));
        fill(rest, complaint(error));
      }
    },
  };
}

function shown(hour, week, buckets, earlier) {
  return [
    overfull(hour, week),
    buckets.length > 0 && [chart(hour, buckets), table(buckets)],
    facts([
      ...hour.slots ? [["Worker time", hour.seconds ? `about ${workTime(hour.seconds)}` : "not known: none of these tasks has completed a run"]] : [],
      ["A week before", earlier ? outcome(earlier) : "no slots"],
      ...quietest(hour, week),
    ]),
  ];
}

/** Say in which hours of the same day the fewest slots are to come. */
function quietest(hour, week) {
  const found = week.quietest(hour);
  if (!found) return [];
  const { hours: [first, ...others], isWhole } = found;
  const end = stamp(Date.parse((others.at(-1) ?? first).at) + HOUR_MILLISECONDS);
  const slots = first.slots ? `${count(first.slots, "slot")}${others.length ? " each" : ""}` : "no slots";
  return [[`Quietest ${others.length ? "hours" : "hour"} of the day`, `${isWhole ? "all alike" : between(first.at, end)}: ${slots}`]];
}

function heading({ at }) {
  return h("h3", {}, between(at, stamp(Date.parse(at) + HOUR_MILLISECONDS)));
}

function sentence(buckets) {
  if (!buckets.length) return "No slot falls in this hour.";
  const slots = buckets.reduce((sum, bucket) => sum + total(bucket), 0);
  const free = MINUTES - buckets.length;
  const rest = free ? `${free} ${free === 1 ? "minute has" : "minutes have"} none.` : fewest(buckets);
  return `${count(slots, "slot")} in ${count(buckets.length, "minute")}. ${rest}`;
}

/** Name the minute that has the fewest slots, if not all have as many. */
function fewest(buckets) {
  const [least, most] = [Math.min(...buckets.map(total)), Math.max(...buckets.map(total))];
  const first = buckets.find((bucket) => total(bucket) === least);
  return `No minute is free${least < most ? `: :${minuteAfter(first, 0)} has the fewest, ${least.toLocaleString("en")}` : ""}.`;
}

function total({ slots, started, skipped }) {
  return slots + started + skipped;
}

function overfull(hour, week) {
  return week.isOverfull(hour) && h("p", { class: "notice" },
    `Overfull: ${count(week.most, "run")} at once can do ${workTime(week.most * 3600)} of work in an hour. Runs will wait for one another.`);
}

/** Draw a bar for each minute; the table below says the same. */
function chart({ at }, buckets) {
  const counts = new Array(MINUTES).fill(0);
  for (const bucket of buckets) counts[minuteOf(bucket)] = total(bucket);
  return minuteBars(counts, (minute) => written(stamp(Date.parse(at) + minute * MINUTE_MILLISECONDS)));
}

/** List the minutes that have slots; minutes in a row with the same slots are one line. */
function table(buckets) {
  const lines = [];
  for (const bucket of buckets) {
    const last = lines.at(-1);
    if (last && minuteOf(bucket) === last.to + 1 && outcome(bucket) === outcome(last.bucket)) last.to += 1;
    else lines.push({ from: minuteOf(bucket), to: minuteOf(bucket), bucket });
  }
  return h("table", { class: "minute-list" },
    h("caption", { class: "unseen" }, "The minutes that have slots"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Minute"), h("th", { scope: "col" }, "Slots"))),
    h("tbody", {}, lines.map(({ from, to, bucket }) => h("tr", {},
      h("th", { scope: "row" }, `:${minuteAfter(bucket, 0)}${to > from ? ` to :${minuteAfter(bucket, to - from)}` : ""}`),
      h("td", {}, outcome(bucket), to > from && " each")))));
}

/** Put the slots of a bucket into words: "3 to come, 2 started". */
function outcome({ slots, started, skipped }) {
  return [slots && `${slots} to come`, started && `${started} started`, skipped && `${skipped} skipped`].filter(Boolean).join(", ");
}

function minuteOf({ at }) {
  return Number(at.slice(14, 16));
}

/** Write the minute so many after a bucket as the chosen clock shows it: zones may be half an hour apart. */
function minuteAfter({ at }, minutes) {
  return String(partsOf(Date.parse(at) + minutes * MINUTE_MILLISECONDS).minute).padStart(2, "0");
}
