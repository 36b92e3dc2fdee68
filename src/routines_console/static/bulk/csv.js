/**
 * Write routines as CSV, a line for each.
 */

import { cadenceWords } from "../words.js";

/** @type {[string, (entry: import("../fleet.js").Entry) => unknown][]} */
const COLUMNS = [
  ["task", ({ routine }) => routine.task_name],
  ["routine", ({ routine }) => routine.name],
  ["cadence", ({ routine }) => cadenceWords(routine.cadence)],
  ["state", ({ health }) => health.words],
  ["needs_attention", ({ health }) => health.group === "attention"],
  ["causes", ({ health }) => health.causes.join("; ")],
  ["last_outcome_at", ({ health }) => health.at],
  ["last_run_at", ({ routine }) => routine.last_run_at],
  ["next_run_at", ({ routine }) => routine.next_run_at],
  ["paused", ({ routine }) => routine.paused],
  ["paused_until", ({ routine }) => routine.paused_until],
  ["paused_note", ({ routine }) => routine.paused_note],
];

/** @param {import("../fleet.js").Entry[]} entries */
export function csvOf(entries) {
  const lines = [COLUMNS.map(([name]) => name), ...entries.map((entry) => COLUMNS.map(([, of]) => field(of(entry))))];
  return lines.map((line) => `${line.join(",")}\r\n`).join("");
}

function field(given) {
  const text = String(given ?? "");
  // A spreadsheet takes what begins like this for a formula.
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
