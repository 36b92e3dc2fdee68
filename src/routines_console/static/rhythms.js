/**
 * The rhythms that the form offers: the cadence types of the service, in the words of people, and those that become a cron expression,
 * such as "monthly" or "daily, in Europe/Berlin".
 *
 * @typedef {object} Rhythm
 * @property {string} name
 * @property {Record<string, import("./cadences.js").CadenceField>} fields
 * @property {(values: Record<string, any>) => any} write Return the cadence that these values make.
 */

/** In which order rhythms are offered; those that are missing here come in the place of `other`. */
const ORDER = ["hourly", "daily", "weekdays", "weekly", "monthly", "other", "interval", "once", "manual", "cron"];
/** The types that can be read on the clocks of a time zone. */
const ZONED = ["daily", "weekdays", "weekly"];
const WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FULL = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/** What else a monthly slot may fall on, in the words of cron, beside the days 1 to 31. */
const SPECIAL = { L: "last day", LW: "last weekday", "1W": "first weekday" };
const WEEK = [1, 2, 3, 4, 5, 6, 0];
export const MONTH_DAYS = [
  ...Array.from({ length: 31 }, (_, index) => String(index + 1)), ...Object.keys(SPECIAL),
  ...WEEK.map((day) => `${WEEKDAYS[day]}#1`), ...WEEK.map((day) => `${day}L`),
];
/** An expression with one time of the day, in every month. */
const PLAIN = /^(\d\d?) (\d\d?) (\S+) \* (\S+)$/;

/**
 * Return what the form offers: words of people first, cron last.
 *
 * @param {import("./cadences.js").CadenceType[]} types Of the service.
 * @returns {Rhythm[]}
 */
export function rhythms(types) {
  const zone = types.find(({ type }) => type === "cron")?.fields.timezone;
  const daily = types.find(({ type }) => type === "daily")?.fields;
  const found = types.map(({ type, fields }) => zone && ZONED.includes(type) ? zoned(type, fields, zone) : plain(type, fields));
  if (zone && daily) found.push(monthly(daily, zone));
  const place = ({ name }) => ORDER.indexOf(ORDER.includes(name) ? name : "other");
  return found.sort((one, other) => place(one) - place(other));
}

/** @returns {Rhythm} */
function plain(name, fields) {
  return { name, fields, write: (values) => ({ type: name, ...values }) };
}

/** @returns {Rhythm} */
function zoned(name, fields, timezone) {
  const days = { weekdays: () => "mon-fri", weekly: ({ day_of_week }) => day_of_week };
  return {
    name, fields: { ...fields, timezone },
    write({ timezone: zone, ...values }) {
      // A time that is none is left to the service, which names the field that is wrong.
      if (isUtc(zone) || !isTime(values)) return { type: name, ...values };
      return cron(values, "*", days[name]?.(values) ?? "*", zone);
    },
  };
}

/** @returns {Rhythm} */
function monthly({ hour_utc, minute_utc }, timezone) {
  return {
    name: "monthly", fields: { month_day: { required: true, choices: MONTH_DAYS, words: dayOfMonth }, hour_utc, minute_utc, timezone },
    write({ month_day: day, timezone: zone, ...values }) {
      if (!isTime(values)) return { type: "daily", ...values };
      return isDayOfWeek(day) ? cron(values, "*", day, zone ?? "UTC") : cron(values, day, "*", zone ?? "UTC");
    },
  };
}

function cron({ hour_utc: hour, minute_utc: minute }, day, weekday, timezone) {
  return { type: "cron", expression: `${minute ?? 0} ${hour} ${day} * ${weekday}`, timezone };
}

function isUtc(zone) {
  return !zone || zone === "UTC";
}

function isTime({ hour_utc: hour, minute_utc: minute }) {
  return isWithin(hour, 23) && isWithin(minute ?? 0, 59);
}

function isWithin(number, most) {
  return Number.isInteger(number) && number >= 0 && number <= most;
}

function isDayOfWeek(day) {
  return day.includes("#") || /^\dL$/.test(day);
}

/**
 * Return the rhythm that a cadence is in the words of people, with its values: also that of a cron expression, if there is one.
 *
 * @param {any} cadence
 * @returns {Record<string, any> & {name: string}}
 */
export function spoken(cadence) {
  const { type, ...values } = cadence;
  return (type === "cron" && spokenCron(cadence)) || { name: type, ...values };
}

function spokenCron({ expression, timezone }) {
  const [text, ...more] = [expression ?? ""].flat();
  const [, minute, hour, day, weekday] = more.length ? [] : PLAIN.exec(String(text).trim().replace(/\s+/g, " ")) ?? [];
  const values = { hour_utc: Number(hour), minute_utc: Number(minute), timezone: timezone ?? "UTC" };
  if (!isTime(values)) return null;
  const inMonth = MONTH_DAYS.find((each) => each.toLowerCase() === (day === "*" ? weekday : day).toLowerCase());
  if (day !== "*") return weekday === "*" && inMonth && !isDayOfWeek(inMonth) ? { name: "monthly", month_day: inMonth, ...values } : null;
  if (weekday === "*") return { name: "daily", ...values };
  if (/^(mon-fri|1-5)$/i.test(weekday)) return { name: "weekdays", ...values };
  const dayOfWeek = WEEKDAYS[WEEKDAYS.indexOf(weekday.toLowerCase())] ?? (/^[0-7]$/.test(weekday) ? WEEKDAYS[Number(weekday) % 7] : null);
  if (dayOfWeek) return { name: "weekly", day_of_week: dayOfWeek, ...values };
  return inMonth && isDayOfWeek(inMonth) ? { name: "monthly", month_day: inMonth, ...values } : null;
}

/** Put the day of a monthly rhythm into words: "1st", "last day", "first Monday". @param {string} day One of `MONTH_DAYS`. */
export function dayOfMonth(day) {
  if (SPECIAL[day]) return SPECIAL[day];
  if (day.includes("#")) return `first ${FULL[WEEKDAYS.indexOf(day.slice(0, 3))]}`;
  if (isDayOfWeek(day)) return `last ${FULL[Number(day[0])]}`;
  const ending = { 1: "st", 2: "nd", 3: "rd" }[/^1\d$/.test(day) ? "0" : day.slice(-1)] ?? "th";
  return `${day}${ending}`;
}
