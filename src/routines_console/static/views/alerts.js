/**
 * List the alerts of the collection, open ones first, and the rules that open them.
 */

import { button, empty, fill, h, link, section, title } from "../dom.js";
import { complaint } from "../components/failure.js";
import { confirm } from "../components/confirm.js";
import { ago, at } from "../time.js";
import { count, EVENTS, listed } from "../words.js";

const PAST = 100;
const MOST_OPEN = 200;

/** Build the page. @param {import("../main.js").Context} context */
export async function alerts(context) {
  const { session: { api, collection }, signal } = context;
  const [open, all, rules] = await Promise.all([
    api.page(["alerts", collection], { state: "open", limit: MOST_OPEN }, signal),
    api.get(["alerts", collection], { limit: PAST }, signal),
    api.get(["alert-rules", collection], {}, signal),
  ]);
  const past = all.filter(({ state }) => state !== "open");
  const body = h("div", { class: "alerts" },
    h("div", { class: "headline" }, title(heading(open, rules)), link(["alerts", "new"], { class: "button" }, "New rule")),
    h("p", { class: "lede" }, "A rule watches routines, and sends a notice to its webhook when something goes wrong and, if you like, when it is over."),
    rules.length > 0 && section("Open", {}, open.items.length ? h("ul", { class: "rows" }, open.items.map(row))
      : empty("Nothing is open", "Whatever the rules watch is in order.")),
    section("Rules", {}, rules.length ? h("ul", { class: "rows" }, rules.map((rule) => ruleRow(context, rule)))
      : empty("No rules yet", "Without a rule nobody is told. ", link(["alerts", "new"], {}, "Create one"), ".")),
    past.length > 0 && section("Past", {}, h("ul", { class: "rows" }, past.map(row))));
  return { name: "Alerts", body };
}

function heading({ items, cursor }, rules) {
  if (!rules.length) return "No alert rules yet.";
  if (!items.length) return "No open alerts.";
  return cursor ? `More than ${MOST_OPEN} open alerts.` : `${count(items.length, "open alert")}.`;
}

function row(alert) {
  const { task, routine } = alert;
  return h("li", { class: "row alert" },
    h("div", { class: "who" },
      h("span", { class: "name" }, EVENTS[alert.event] ?? alert.event), " ",
      link(["routines", task, routine], {}, `${task}/${routine}`)),
    h("div", {},
      h("p", { class: "wrap" }, alert.detail),
      h("p", { class: "quiet" },
        alert.scheduled_for && ["Slot ", at(alert.scheduled_for), ". "],
        alert.trajectory_id && [link(["runs", task, alert.trajectory_id], {}, `Run ${alert.trajectory_id}`), ". "],
        "Opened ", ago(alert.opened_at), ", ", told(alert), end(alert))));
}

/** Say what became of the notice. */
function told({ rule, notice, notified_at }) {
  switch (notice) {
    case "delivered": return [`told by ${rule} `, ago(notified_at)];
    case "pending": return `${rule} is telling it`;
    case "waiting": return `${rule} will tell it`;
    case "given_up": return `${rule} could not tell it: the webhook was given up`;
    default: return `not told by ${rule}`;
  }
}

function end({ state, recovered_at, suppressed_reason }) {
  if (state === "recovered") return [". Over since ", ago(recovered_at)];
  return state === "suppressed" ? `. No longer watched: ${suppressed_reason}` : ".";
}

function ruleRow(context, rule) {
  const { api, collection } = context.session;
  const trouble = h("div", {});
  const remove = button("Delete", async () => {
    if (!await confirm(`Delete the rule ${rule.name}?`, "Nobody is told by it any more, and its alerts are no longer listed.", "Delete", "Keep it")) return;
    remove.disabled = true;
    try {
      await api.send("DELETE", ["alert-rules", collection, rule.name]);
      context.say(`The rule ${rule.name} was deleted.`);
      await context.reload();
    } catch (error) {
      remove.disabled = false;
      fill(trouble, complaint(error));
    }
  }, { class: "danger", "aria-label": `Delete the rule ${rule.name}` });
  return h("li", { class: "row rule" },
    h("div", { class: "who" }, link(["alerts", "rules", rule.name], { class: "name" }, rule.name), " ", h("span", { class: "quiet" }, scope(rule.scope))),
    h("div", { class: "quiet" }, `${listed(rule.on.map((event) => (EVENTS[event] ?? event).toLowerCase()))}; `,
      rule.digest === "daily" ? `once a day at ${rule.digest_at_utc} UTC` : "at once", `, to ${host(rule.webhook_url)}`),
    h("div", {}, remove, trouble));
}

/** Put the routines that a rule watches into words. @param {{task: string | null, routine: string | null}} scope */
export function scope({ task, routine }) {
  if (routine) return `watches ${task}/${routine}`;
  return task ? `watches all routines of ${task}` : "watches all routines";
}

/** Return the host of a URL: its path may be a secret. @param {string} url */
function host(url) {
  return URL.canParse(url) ? new URL(url).host : url;
}
