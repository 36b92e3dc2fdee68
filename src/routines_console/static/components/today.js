/**
 * Show what became of the slots of the last hours: a number for each outcome, which narrows the list to the routines behind it.
 */

import { address, button, fill, h } from "../dom.js";
import { now } from "../time.js";
import { complaint } from "./failure.js";

const HOUR_MILLISECONDS = 3_600_000;
const MOST_ROUTINES = 10_000;
/**
 * The windows: the name in the address, the text, and how many hours back it begins; null for the beginning of the day.
 *
 * @type {[string, string, number | null][]}
 */
const WINDOWS = [["", "Since 00:00 UTC", null], ["12h", "12 hours", 12], ["24h", "24 hours", 24]];
/**
 * The numbers: the name in the address, which is also a kind of outcome; the text; and what is counted of a line of the report.
 *
 * @type {[string, string, (line: any) => number][]}
 */
export const NUMBERS = [
  ["due", "due", ({ expected }) => expected],
  ["completed", "completed", ({ completed }) => completed],
  ["failed", "failed", ({ failed }) => failed],
  ["missed", "missed", ({ skipped }) => skipped.missed],
  ["failed_to_start", "failed to start", ({ skipped }) => skipped.failed_to_start],
  ["late", "late", ({ late }) => late],
  ["running", "going on", ({ active, pending }) => active + pending],
  ["overlap", "skipped", ({ skipped }) => skipped.overlap + skipped.coalesced + skipped.paused + skipped.calendar + skipped.outside_hours + skipped.backoff],
  ["cancelled", "cancelled", ({ cancelled, archived }) => cancelled + archived],
];
/** Shown even if they are 0, since that is what people look for. */
export const ALWAYS = ["due", "completed", "failed", "missed"];

/**
 * Return the window and the number that an address names. One that there is not stands for the first window, and for no number.
 *
 * @param {Record<string, string>} query
 */
export function sinceOf({ since = "", of = "" }) {
  const known = (list, name) => list.some(([each]) => each === name) ? name : "";
  return { since: known(WINDOWS, since), of: known(NUMBERS, of) };
}

/**
 * Build the band; call `load` to fill it.
 *
 * @param {import("../main.js").Context} context
 * @param {{since: string, of: string}} given
 * @param {(chosen: {since: string, of: string}) => void} changed Called once the numbers of another choice have been read.
 */
export function today({ session: { api, collection }, signal }, given, changed) {
  let { since, of } = given;
  let asked = 0;
  /** The routines behind the chosen number, by id; null while none is chosen. @type {Set<number> | null} */
  let behind = null;
  const numbers = h("div", { class: "numbers" });
  const whole = h("a", { href: address(["report"], { since }) }, "Report");
  const radios = WINDOWS.map(([name, text]) => h("label", {},
    h("input", { type: "radio", name: "since", value: name, checked: name === since, oninput: () => choose(name, of) }), h("span", {}, text)));
  const element = h("section", { class: "today", "aria-label": "What became of the slots" },
    h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, "Slots of"), radios), numbers, whole);

  async function choose(toSince, toOf) {
    [since, of] = [toSince, toOf];
    whole.href = address(["report"], { since });
    if (await load()) changed({ since, of });
  }

  /** Read the report and show it. Returns whether it was read, and nothing newer was asked for meanwhile. */
  async function load() {
    asked += 1;
    const mine = asked;
    const hours = WINDOWS.find(([name]) => name === since)?.[2];
    const from = hours ? new Date(now() - hours * HOUR_MILLISECONDS).toISOString() : null;
    try {
      // The routines are of interest only if one of the numbers is chosen.
      const report = await api.get(["report", collection], { from, limit: of ? MOST_ROUTINES : 1 }, signal);
      if (mine !== asked) return false;
      const counts = NUMBERS.find(([name]) => name === of)?.[2];
      behind = counts ? new Set(report.routines.filter(counts).map((line) => line.routine_id)) : null;
      fill(numbers, NUMBERS.map((number) => figure(number, report.total)));
      return true;
    } catch (error) {
      if (mine === asked && !signal.aborted) fill(numbers, complaint(error));
      return false;
    }
  }

  function figure([name, text, counts], total) {
    const number = counts(total);
    if (!number && !ALWAYS.includes(name) && name !== of) return null;
    const content = [h("strong", {}, number.toLocaleString("en")), " ", h("span", { class: "badge" }, number > 0 && h("i", { "aria-hidden": "true" }), text)];
    return button(content, () => choose(since, of === name ? "" : name),
      { id: `of-${name}`, class: `figure ${number ? name : ""}`, "aria-pressed": String(of === name), disabled: !number && of !== name });
  }

  return {
    element,
    load,
    /** Return whether a routine is behind the chosen number; every one is while none is chosen. @param {number} id */
    has: (id) => behind === null || behind.has(id),
    /** Return whether it is known which routines are behind the chosen number. */
    isKnown: () => of === "" || behind !== null,
  };
}
