/**
 * Show the webhook deliveries of a routine, or of one of its runs, each with a button to send it again.
 */

import { button, empty, fill, h, link } from "../dom.js";
import { at, duration, when } from "../time.js";
import { count } from "../words.js";
import { answered } from "./answer.js";
import { complaint } from "./failure.js";
import { badge } from "./strip.js";

const STATES = { pending: ["pending", "Pending"], delivered: ["completed", "Delivered"], given_up: ["failed", "Given up"] };
const PAGE = 20;

/**
 * Build the list; it loads itself.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The routine's path in the API.
 * @param {number | null} run Show only the deliveries of this run; null shows all.
 */
export function deliveries(context, path, run) {
  const { session: { api }, signal } = context;
  const list = h("ol", { class: "deliveries" });
  const foot = h("div", {});

  /** @param {string | null} [cursor] */
  async function load(cursor = null) {
    try {
      const page = await api.page([...path, "deliveries"], { limit: run ? 100 : PAGE, cursor }, signal);
      const found = page.items.filter((each) => run === null || each.trajectory_id === run);
      if (cursor) list.append(...found.map(row));
      else fill(list, found.map(row));
      fill(foot, !list.children.length && !page.cursor && empty("No webhooks yet", "One is sent when a run ends."),
        page.cursor && button("Older webhooks", () => load(page.cursor)));
    } catch (error) {
      if (!signal.aborted) fill(foot, complaint(error));
    }
  }

  async function again(delivery, event) {
    event.currentTarget.disabled = true;
    try {
      await api.send("POST", [...path, "deliveries", delivery.id, "redeliver"]);
      context.say("The webhook will be sent again.");
    } catch (error) {
      context.say(error.message);
    }
    load();
  }

  function row(delivery) {
    const [kind, words] = STATES[delivery.state];
    return h("li", {},
      h("div", {}, badge(kind, words)),
      h("div", { class: "story" }, h("code", { class: "wrap" }, delivery.url),
        h("span", {}, run === null && [link(["runs", path[2], delivery.trajectory_id], {}, `Run ${delivery.trajectory_id}`), " "],
          delivery.status, ", ", when(delivery.created_at)),
        delivery.give_up_reason && h("span", { class: "cause" }, delivery.give_up_reason),
        delivery.next_attempt_at && h("span", { class: "quiet" }, "Next attempt ", when(delivery.next_attempt_at)),
        delivery.endpoint_stopped_at && h("span", { class: "cause" }, "Sending to this URL stopped on ", at(delivery.endpoint_stopped_at), `: ${delivery.endpoint_stopped_reason}`),
        attempts(delivery.attempts)),
      h("div", {}, button("Send again", (event) => again(delivery, event), { "aria-label": `Send the webhook of run ${delivery.trajectory_id} again` })));
  }

  load();
  return h("div", {}, list, foot);
}

function attempts(made) {
  if (!made.length) return null;
  return h("details", {}, h("summary", {}, count(made.length, "attempt")),
    h("ul", { class: "plain-list" }, made.map((attempt) => h("li", {}, at(attempt.at), " ",
      h("span", { class: "quiet" }, [attempt.status, attempt.error, duration(attempt.duration_seconds)].filter(Boolean).join(", ")),
      answered(attempt.answer)))));
}
