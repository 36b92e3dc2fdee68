/**
 * List the calendar feeds of the collection, create one, and revoke them.
 */

import { address, button, empty, fill, h, link, section, title } from "../dom.js";
import { complaint, isDisabled } from "../components/failure.js";
import { ago } from "../time.js";
import { count } from "../words.js";

const BASE = new URL("../api/v1/ics/", document.baseURI);

/** Build the page. @param {import("../main.js").Context} context */
export async function feeds(context) {
  const { session: { api, collection }, query, signal } = context;
  const found = await feedsOf(api, collection, signal);
  if (!found) return { name: "Feeds", body: h("div", {}, title("Routines are disabled.")) };
  const body = h("div", {},
    h("div", { class: "headline" }, title(found.length ? `${count(found.length, "calendar feed")}.` : "No calendar feeds yet.")),
    h("p", { class: "lede" }, "A calendar program that subscribes to a feed shows the coming slots. The address of a feed is a secret: anyone who has it can read the feed, and nothing else."),
    section("Subscribe", { class: "card" }, create(context, { task: query.task, routine: query.task && query.routine })),
    section("Feeds", {}, found.length ? h("ul", { class: "rows" }, found.map((feed) => row(context, feed)))
      : empty("Nobody has subscribed yet", "Create a feed above, and add its address to your calendar program.")));
  return { name: "Feeds", body };
}

/** Return the feeds; null if routines are disabled. */
async function feedsOf(api, collection, signal) {
  try {
    return await api.get(["ics", collection], {}, signal);
  } catch (error) {
    if (isDisabled(error)) return null;
    throw error;
  }
}

/** Build the form that creates a feed of what the address of the page names. */
function create({ session: { api, collection } }, scope) {
  const answer = h("div", { "aria-live": "polite" });
  const submit = button("Create a feed", async () => {
    submit.disabled = true;
    try {
      const made = await api.send("POST", ["ics", collection], scope);
      fill(answer, shown(new URL(`${made.token}.ics`, BASE).href));
      document.getElementById("feed-address")?.focus();
    } catch (error) {
      submit.disabled = false;
      fill(answer, complaint(error));
    }
  }, { class: "primary", id: "create-feed" });
  return [
    h("p", {}, "It shows ", h("strong", {}, words(scope)), ".",
      scope.task && [" ", h("a", { href: address(["feeds"]) }, "All routines instead")]),
    submit, answer,
  ];
}

/** Show the address of a new feed. @param {string} url */
function shown(url) {
  const input = h("input", { id: "feed-address", readonly: true, class: "code", value: url, onfocus: () => input.select() });
  return [
    h("label", { for: "feed-address" }, "Subscribe to this address. It is shown only now."), input,
    h("p", { class: "hint" }, "In Google Calendar: Other calendars, From URL. In Outlook: Add calendar, Subscribe from web. In Apple Calendar: File, New Calendar Subscription."),
  ];
}

function row(context, feed) {
  const { api, collection } = context.session;
  const trouble = h("div", {});
  const revoke = button("Revoke", async () => {
    revoke.disabled = true;
    try {
      await api.send("DELETE", ["ics", collection, feed.id]);
      context.say(`Feed ${feed.id} was revoked.`);
      await context.reload();
    } catch (error) {
      revoke.disabled = false;
      fill(trouble, complaint(error));
    }
  }, { class: "danger", "aria-label": `Revoke feed ${feed.id}` });
  return h("li", { class: "row" },
    h("div", { class: "who" }, h("span", { class: "name" }, target(feed)), h("span", { class: "quiet" }, `feed ${feed.id}, created `, ago(feed.created_at))),
    h("div", { class: "quiet" }, "last read ", ago(feed.last_used_at)),
    h("div", {}, revoke, trouble));
}

function target({ task, routine }) {
  if (routine) return link(["routines", task, routine], {}, `${task}/${routine}`);
  return task ? link(["tasks", task], {}, task) : "all routines";
}

function words({ task, routine }) {
  if (routine) return `the routine ${task}/${routine}`;
  return task ? `all routines of the task ${task}` : "all routines of the collection";
}
