/**
 * Show the webhook deliveries of a routine, or of one of its runs, each with a button to send it again.
 */

import { button, empty, h, link } from "../dom.js";
import { at, duration, when } from "../time.js";
import { count } from "../words.js";
import { answered } from "./answer.js";
import { pages } from "./pages.js";
import { badge } from "./strip.js";

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

  async function read(cursor) {
    const page = await api.page([...path, "deliveries"], { limit: run ? 100 : PAGE, cursor }, signal);
    return { items: page.items.filter((each) => run === null || each.trajectory_id === run), next: page.cursor };
  }

  async function again(delivery, event) {
    const pressed = event.currentTarget;
    pressed.disabled = true;
    try {
      await api.send("POST", [...path, "deliveries", delivery.id, "redeliver"]);
      context.say("The webhook will be sent again.");
    } catch (error) {
      context.say(error.message);
      pressed.disabled = false;
    }
    list.load();
  }

  function row(delivery) {
    const [kind, words] = state(delivery);
    return h("li", {},
      h("div", {}, badge(kind, words)),
      h("div", { class: "story" }, h("code", { class: "wrap" }, delivery.url),
        h("span", {}, run === null && [link(["runs", path[2], delivery.trajectory_id], {}, `Run ${delivery.trajectory_id}`), " "],
          delivery.status, ", ", when(delivery.created_at)),
        delivery.give_up_reason && h("span", { class: "cause" }, delivery.give_up_reason),
        delivery.next_attempt_at && h("span", { class: "quiet" }, "Next attempt ", when(delivery.next_attempt_at)),
        delivery.endpoint_stopped_at && h("span", { class: "cause" }, "Sending to this URL stopped on ", at(delivery.endpoint_stopped_at), `: ${delivery.endpoint_stopped_reason}`),
        attempts(delivery.attempts)),
      h("div", {}, button(["Send again", h("span", { class: "unseen" }, ` the webhook of run ${delivery.trajectory_id}`)],
        (event) => again(delivery, event), { id: `again-${delivery.id}` })));
  }

  const nothing = () => empty("No webhooks yet", "One is sent when a run ends.");
  const list = pages({ kind: "deliveries", read, row, nothing, more: "Older webhooks" }, signal);
  list.load();
  return list;
}

/** Return the kind of a delivery's state, and its words. A failure stays visible until an attempt succeeds. */
function state({ state: name, attempts: made }) {
  if (name === "delivered") return ["completed", "Delivered"];
  if (name === "given_up") return ["failed", "Given up"];
  const failures = made.filter(({ error }) => error).length;
  return failures ? ["failed", count(failures, "failed attempt")] : ["pending", "Pending"];
}

function attempts(made) {
  if (!made.length) return null;
  return h("details", {}, h("summary", {}, count(made.length, "attempt")),
    h("ul", { class: "plain-list" }, made.map((attempt) => h("li", {}, at(attempt.at), " ",
      h("span", { class: "quiet" }, [attempt.status, attempt.error, duration(attempt.duration_seconds)].filter(Boolean).join(", ")),
      answered(attempt.answer)))));
}
