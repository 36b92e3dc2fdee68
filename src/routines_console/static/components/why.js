/**
 * Ask why a routine ran, or did not run, at a given time; the ledger answers in a sentence.
 */

import { clockName } from "../clock.js";
import { fill, h, link } from "../dom.js";
import { at } from "../time.js";
import { complaint } from "./failure.js";
import { momentField, momentForm } from "./moment.js";

const TIME = /(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)/;

/**
 * Build the form.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The routine's path in the API.
 * @param {string} task
 * @param {string} suggested The time to ask about, unless the user names another.
 * @param {boolean} isAsked Whether to ask about it at once.
 */
export function why({ session: { api }, signal }, path, task, suggested, isAsked) {
  const moment = momentField("why-at", suggested, { required: true, "aria-describedby": "why-hint" });
  let asked = 0;
  const answer = h("div", { class: "answer", "aria-live": "polite", id: "why-answer" });

  async function ask() {
    asked += 1;
    const mine = asked;
    const time = moment.read();
    if (!time) {
      moment.input.setAttribute("aria-invalid", "true");
      return fill(answer, h("p", { class: "field-error" }, momentForm()));
    }
    moment.input.removeAttribute("aria-invalid");
    try {
      const { sentence, facts } = await api.get([...path, "why"], { at: time }, signal);
      if (mine === asked) fill(answer, h("p", { class: "sentence" }, readable(sentence)), runs(facts, task));
    } catch (error) {
      if (mine === asked && !signal.aborted) fill(answer, complaint(error));
    }
  }

  if (isAsked) ask();
  return h("form", { onsubmit: (event) => { event.preventDefault(); ask(); }, novalidate: true },
    h("label", { for: "why-at" }, `Time (${clockName()})`),
    h("div", { class: "with-button" }, moment.input, h("button", { class: "primary", id: "ask-why" }, "Ask")),
    h("p", { class: "hint", id: "why-hint" }, "Any time, past or future."),
    answer);
}

/** Format the times in the service's sentence. @param {string} sentence */
function readable(sentence) {
  return sentence.split(TIME).map((piece) => TIME.test(piece) ? at(piece) : piece);
}

function runs(facts, task) {
  const ids = [facts.trajectory_id, facts.last_trajectory_id, facts.blocking_trajectory_id, facts.filled_by].filter(Boolean);
  return ids.length > 0 && h("p", {}, ids.map((id) => link(["runs", task, id], {}, `Open run ${id}`)));
}
