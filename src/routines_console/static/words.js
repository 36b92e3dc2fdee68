/**
 * The service's words as people say them: cadences, outcomes, statuses.
 */

const DAY_NAMES = {
  mon: "Mondays", tue: "Tuesdays", wed: "Wednesdays", thu: "Thursdays", fri: "Fridays", sat: "Saturdays", sun: "Sundays",
};

/** What each kind of outcome is called. Its class in the style sheet is the same word. */
export const KINDS = {
  completed: "Completed",
  failed: "Failed",
  running: "Running",
  pending: "Waiting for a worker",
  cancelled: "Cancelled",
  archived: "Archived",
  overlap: "Skipped, still running",
  missed: "Missed",
  paused: "Paused",
  failed_to_start: "Failed to start",
};

/** @param {any} cadence */
export function cadenceWords(cadence) {
  const minute = String(cadence.minute_utc ?? 0).padStart(2, "0");
  const time = `${String(cadence.hour_utc).padStart(2, "0")}:${minute} UTC`;
  switch (cadence.type) {
    case "manual": return "By hand only";
    case "hourly": return cadence.minute_utc ? `Every hour at :${minute}` : "Every hour, on the hour";
    case "daily": return `Every day at ${time}`;
    case "weekdays": return `Weekdays at ${time}`;
    case "weekly": return `${DAY_NAMES[cadence.day_of_week] ?? "Weekly"} at ${time}`;
    default: return String(cadence.type);
  }
}

/**
 * Which kind an outcome of the ledger is.
 *
 * @param {any} outcome
 * @returns {string}
 */
export function kindOf(outcome) {
  return outcome.outcome === "started" ? outcome.status ?? "pending" : outcome.reason;
}

/**
 * Why a slot was skipped, in a sentence, in two halves around the run that blocked it.
 *
 * @param {any} row
 * @returns {string}
 */
export function skipSentence(row) {
  switch (row.reason) {
    case "overlap": return "The run before it was still running";
    case "missed": return capital(row.detail) ?? "No ticker came in time";
    case "paused": return capital(row.detail) ?? "The routine was paused";
    case "failed_to_start": return `The run failed to start: ${row.detail ?? "the log of the ticker has the cause"}`;
    default: return row.detail ?? "";
  }
}

/** With a capital at its beginning. @param {string | null} text */
export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : null;
}

/**
 * `1 slot`, `3 slots`.
 *
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** `one`, `one and two`, `one, two and three`. @param {string[]} parts */
export function listed(parts) {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
