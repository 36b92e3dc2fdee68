/**
 * Put the service's values into words: cadences, outcomes, statuses.
 */

import { dayOfMonth, spoken } from "./rhythms.js";

/**
 * Labels of cadence types, their fields and choices, of limits, and of what a run may take from its slot. A name that is missing here is shown as it is (see `label`), so a
 * cadence type that the service adds needs no change. Fields are shown in this order, after those that are missing.
 *
 * @type {Record<string, string>}
 */
const LABELS = {
  interval: "Every … min",
  day_of_week: "Day", month_day: "Day of the month", hour_utc: "Hour (UTC)", minute_utc: "Minute",
  expression: "Cron expression", timezone: "Time zone", every_minutes: "Minutes from slot to slot", anchor: "Counted from", at: "At",
  starts_at: "No slot before", ends_at: "No slot after", active_hours: "Only in these hours",
  mon: "Monday", tue: "Tuesday", wed: "Wednesday", thu: "Thursday", fri: "Friday", sat: "Saturday", sun: "Sunday",
  max_concurrent_runs: "Concurrent runs", run_step_bytes: "Bytes of all steps", run_steps: "Steps", run_children: "Runs in its tree",
  run_log_events: "Log events", run_secrets: "Secrets",
  "slot.scheduled_for": "The time of the slot", "slot.date": "The date of the slot", "slot.local_time": "The local time of the slot",
  "slot.previous": "The slot before", "slot.last_success": "The last slot that succeeded", "slot.trigger": "What started the run",
};

/**
 * Labels of the kinds of outcome, of what else may be wrong with a routine, and of what a backfill may find a slot to be. The style sheet
 * has a class of the same name for each kind.
 */
export const KINDS = {
  completed: "Completed",
  failed: "Failed",
  running: "Running",
  pending: "Waiting for a worker",
  cancelled: "Cancelled",
  archived: "Archived",
  overlap: "Skipped, still running",
  coalesced: "Taken over by a later slot",
  missed: "Missed",
  paused: "Paused",
  failed_to_start: "Failed to start",
  calendar: "Excluded by a calendar",
  outside_hours: "Outside active hours",
  backoff: "Skipped after failures",
  slow: "Takes unusually long",
  webhook: "Webhook fails",
  before_creation: "Before its creation",
  forgotten: "No longer known",
  excluded: "Excluded",
  coming: "To come",
  due: "Due, not picked up",
};

/** Which slots a backfill runs. @type {Record<string, string>} */
export const REPROCESS = {
  missing: "Slots that never ran", failed: "Also failed and cancelled slots", all: "All slots, also completed ones",
};

/** Which slot a backfill runs first. @type {Record<string, string>} */
export const ORDERS = { oldest: "Oldest first", newest: "Newest first" };

/** What an alert rule can watch, and that it also tells the end. @type {Record<string, string>} */
export const EVENTS = {
  late: "Late", missed: "Missed", failed: "Failed", streak: "Failing repeatedly", slow: "Slow", paused: "Paused by the scheduler",
  webhook_stopped: "Webhook given up", recovered: "Over again",
};

/** Return the label of a name of the API: `day_of_month` is "Day of month". @param {string} name */
export function label(name) {
  return LABELS[name] ?? capital(String(name).replaceAll("_", " ")) ?? "";
}

/** Sort names of cadence fields as the form shows them. @param {string[]} names */
export function inFieldOrder(names) {
  const order = Object.keys(LABELS);
  return [...names].sort((one, other) => order.indexOf(one) - order.indexOf(other));
}

/**
 * Describe a cadence: "Weekdays at 09:00 UTC". A type that has no sentence here is described by its fields.
 *
 * @param {any} cadence
 */
export function cadenceWords(cadence) {
  switch (cadence.type) {
    case "manual": return "Manual runs only";
    case "hourly": return cadence.minute_utc ? `Every hour at :${two(cadence.minute_utc)}` : "Every hour, on the hour";
    case "daily": return `Every day at ${timeOfDay(cadence)}`;
    case "weekdays": return `Weekdays at ${timeOfDay(cadence)}`;
    case "weekly": return `${cadence.day_of_week ? `${label(cadence.day_of_week)}s` : "Weekly"} at ${timeOfDay(cadence)}`;
    case "cron": return spokenWords(spoken(cadence)) ?? `Cron ${[cadence.expression].flat().join("; ")}, ${cadence.timezone ?? "UTC"}`;
    case "interval": return `Every ${count(cadence.every_minutes, "minute")}`;
    case "once": return `Once at ${cadence.at ?? "…"}`;
    default: return fieldByField(cadence);
  }
}

/** Describe a cron expression in the words of people; null if there are none for it. */
function spokenWords({ name: type, ...values }) {
  if (type === "monthly") return `Monthly on the ${dayOfMonth(values.month_day)} at ${timeOfDay(values)}`;
  return type === "cron" ? null : cadenceWords({ type, ...values });
}

/** Describe a cadence of any type: "Monthly, day of month 15, at 09:00 UTC". */
function fieldByField({ type, hour_utc = null, minute_utc = null, ...fields }) {
  const given = Object.entries(fields).filter(([, value]) => value !== null);
  const parts = given.map(([name, value]) => `${label(name).toLowerCase()} ${typeof value === "string" ? label(value) : JSON.stringify(value)}`);
  if (hour_utc !== null) parts.push(`at ${timeOfDay({ hour_utc, minute_utc })}`);
  else if (minute_utc) parts.push(`at minute ${minute_utc}`);
  return [label(type), ...parts].join(", ");
}

function timeOfDay({ hour_utc, minute_utc, timezone }) {
  return `${two(hour_utc)}:${two(minute_utc ?? 0)} ${timezone ?? "UTC"}`;
}

function two(number) {
  return String(number).padStart(2, "0");
}

/**
 * Return the kind of an outcome in the ledger: a key of `KINDS`.
 *
 * @param {any} outcome
 * @returns {string}
 */
export function kindOf(outcome) {
  return outcome.outcome === "started" ? outcome.status ?? "pending" : outcome.reason;
}

/**
 * Say why a slot was skipped, without a full stop: the caller may append the run that blocked it.
 *
 * @param {any} row
 * @returns {string}
 */
export function skipSentence(row) {
  switch (row.reason) {
    case "overlap": return "The previous run was still running";
    case "coalesced": return capital(row.detail) ?? "Its run waited, and is for a later slot";
    case "missed": return capital(row.detail) ?? "No ticker picked it up in time";
    case "paused": return capital(row.detail) ?? "The routine was paused";
    case "failed_to_start": return `The run failed to start: ${row.detail ?? "see the ticker's log for the cause"}`;
    case "calendar": return `A calendar excludes the day: ${row.detail}`;
    case "backoff": return capital(row.detail) ?? "The slots before it failed";
    case "outside_hours": return `Outside the active hours: ${row.detail}`;
    default: return row.detail ?? "";
  }
}

/**
 * Say what becomes of a slot that comes while a run is active.
 *
 * @param {any} routine
 */
export function overlapWords({ overlap_policy, max_concurrent }) {
  switch (overlap_policy) {
    case "skip": return "the next slot is skipped";
    case "queue_one": return "the run of the next slot waits for its end";
    case "cancel_other": return "it is cancelled for the run of the next slot";
    case "allow": return `slots start further runs, up to ${max_concurrent} at once`;
    default: return overlap_policy;
  }
}

/**
 * Say when a routine does not fire, for each rule that it has: "Not on days of holidays-de; they move to the next business day".
 *
 * @param {any} routine
 * @returns {string[]}
 */
export function exclusionWords({ calendar, active_hours }) {
  const words = [];
  if (calendar) {
    const moves = { next_day: "; slots move to the next day", next_business_day: "; slots move to the next business day" }[calendar.on_excluded];
    words.push(`Not on days of ${listed(calendar.exclude)}${moves ?? ""}`);
  }
  if (active_hours) {
    const zone = active_hours.timezone ? ` (${active_hours.timezone})` : "";
    words.push(`Only ${listed(active_hours.windows)}${zone}${active_hours.outside === "defer" ? "; other slots wait for the next window" : ""}`);
  }
  return words;
}

/** Return the text with a capital first letter, or null if it is empty. @param {string | null} text */
export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : null;
}

/**
 * Return a number with its noun: `1 slot`, `3 slots`.
 *
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** Join texts into a list: `one`, `one and two`, `one, two and three`. @param {string[]} texts */
export function listed(texts) {
  return texts.length < 2 ? texts.join("") : `${texts.slice(0, -1).join(", ")} and ${texts.at(-1)}`;
}

const SIZES = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/**
 * Put an amount into words: "12,000 runs", "1.5 GiB".
 *
 * @param {number} amount
 * @param {string} unit As the API names it, in the plural.
 */
export function quantity(amount, unit) {
  if (unit !== "bytes") return `${amount.toLocaleString("en-GB")} ${amount === 1 ? unit.replace(/s\b/, "") : unit}`;
  const power = Math.min(SIZES.length - 1, Math.floor(Math.log2(Math.max(1, amount)) / 10));
  return `${(amount / 1024 ** power).toLocaleString("en-GB", { maximumFractionDigits: 1 })} ${SIZES[power]}`;
}
