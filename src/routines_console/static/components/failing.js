/**
 * Build the inputs for what happens when the runs of a routine fail: retries, and the end after failed slots in a row.
 */

import { fill, h } from "../dom.js";
import { retryWords } from "../failures.js";
import { field, numberOrNull, showError } from "./fields.js";

const GROWING = { initial: 60, multiplier: 2, max: 3600 };

/**
 * Build the inputs.
 *
 * @param {any} given What the routine has now: `retry`, `pause_after_failures`, `then`.
 */
export function failing(given) {
  const retry = retries(given.retry);
  const most = h("input", { id: "pause-after", type: "number", min: 1, max: 100, value: given.pause_after_failures, placeholder: "never", oninput: turned });
  const then = h("select", { id: "then" },
    [["pause", "Pause it until someone resumes it"], ["backoff", "Skip slots, and try again now and then"]].map(([value, text]) =>
      h("option", { value, selected: value === (given.then ?? "pause") }, text)));
  const what = field("then", "Then", then, "To skip: first 1 slot, then twice as many each time that the slot after them fails too, up to 64.");

  function turned() {
    what.hidden = most.value === "";
  }
  turned();
  const element = h("div", {}, retry.element,
    field("pause_after_failures", "Stop after this many failed slots in a row", most, "Leave empty to go on whatever happens."), what);
  return {
    element,
    /** Return the fields; null, with messages, if an input is not valid. */
    read() {
      const read = retry.read();
      if (read === undefined) return null;
      const number = numberOrNull(most);
      return { retry: read, pause_after_failures: number, ...number === null ? {} : { then: then.value } };
    },
  };
}

/** Build the inputs of `retry`. */
function retries(given) {
  const attempts = h("input", { id: "retry-attempts", type: "number", min: 2, max: 20, value: given?.max_attempts, placeholder: "1: no retries" });
  const delays = backoff(given?.backoff ?? GROWING);
  const on = h("select", { id: "retry-on" },
    [["any", "After every failure"], ["transient", "Only if the cause may go away by itself"]].map(([value, text]) =>
      h("option", { value, selected: value === given?.on }, text)));
  const limit = typeof given?.until === "number" ? given.until : null;
  const until = h("input", { id: "retry-until", type: "number", min: 1, max: 604800, value: limit, placeholder: "the next slot" });
  const sentence = h("p", { class: "retry-words", "aria-live": "polite" });
  const rest = h("div", {}, delays.element,
    field("retry.on", "When", on, "Timeouts, lost connections, answers such as 429 and 503, and lost workers may go away by themselves."),
    field("retry.until", "No later than this many seconds after the first try", until, "Leave empty to end at the next slot. Slots that come while a slot is retried are skipped."),
    sentence);

  const read = () => attempts.value === "" ? null
    : { max_attempts: Number(attempts.value), backoff: delays.read(), on: on.value, until: numberOrNull(until) ?? "next_slot" };

  function told() {
    rest.hidden = attempts.value === "";
    const retry = read();
    const isWhole = retry && retry.max_attempts >= 2 && retry.backoff;
    fill(sentence, isWhole ? retryWords(retry)?.map((each) => `${each}. `) : "");
  }

  const element = h("div", { oninput: told, "data-field": "retry" },
    field("retry.max_attempts", "Tries for each slot, the first included", attempts, "Leave empty for one. Each further try is a run of its own, from the first step."),
    rest, h("p", { class: "field-error" }));
  told();
  return {
    element,
    /** Return the retry, null for none, undefined, with a message, if the delays are not valid. */
    read() {
      const retry = read();
      if (!retry || retry.backoff) return retry;
      showError(element, "retry.backoff", delays.rule);
      return undefined;
    },
  };
}

/** Build the inputs of the delays before retries, which grow or are listed one by one. */
function backoff(given) {
  const isList = Array.isArray(given);
  const growing = { ...GROWING, ...isList ? {} : given };
  const number = (name, more) => h("input", { id: `retry-${name}`, type: "number", step: "any", min: 0, value: growing[name], ...more });
  const inputs = { initial: number("initial", {}), multiplier: number("multiplier", { min: 1, max: 10 }), max: number("max", {}) };
  const list = h("input", { id: "retry-delays", value: isList ? given.join(", ") : "", placeholder: "60, 300", inputmode: "decimal", autocomplete: "off" });
  const grow = h("div", { class: "side-by-side" },
    field("retry.backoff.initial", "First, in seconds", inputs.initial),
    field("retry.backoff.multiplier", "Then times", inputs.multiplier),
    field("retry.backoff.max", "At most, in seconds", inputs.max));
  const listed = field("retry.backoff", "Delays, in seconds", list, "The last one holds for all further retries.");
  const radio = (value, text, checked) => h("label", {},
    h("input", { type: "radio", name: "retry-kind", value, checked, oninput: () => turn(value === "list") }), h("span", {}, text));
  let asList = isList;

  function turn(to) {
    asList = to;
    grow.hidden = to;
    listed.hidden = !to;
  }
  turn(isList);

  return {
    rule: "must be numbers of seconds, such as 60, 300",
    element: h("div", {},
      h("fieldset", { class: "segments field" }, h("legend", {}, "Delay before a retry"),
        radio("growing", "Growing", !isList), radio("list", "One by one", isList)),
      grow, listed),
    /** Return the delays; null if they are not numbers. */
    read() {
      if (!asList) return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, numberOrNull(input) ?? GROWING[name]]));
      const numbers = list.value.split(/[\s,;]+/).filter(Boolean).map(Number);
      return numbers.length && !numbers.some(Number.isNaN) ? numbers : null;
    },
  };
}
