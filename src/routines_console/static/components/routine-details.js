/**
 * Show the settings of a routine in words.
 */

import { facts, h } from "../dom.js";
import { retryWords, stopWords } from "../failures.js";
import { at, span, when } from "../time.js";
import { count, exclusionWords, label, overlapWords } from "../words.js";
import { json } from "./json-tree.js";

/** Build the list. @param {any} found */
export function routineDetails(found) {
  const secrets = Object.keys(found.secret_params);
  return facts([
    ["Last run started", when(found.last_run_at)],
    ["While a run is active", overlapWords(found)],
    ...row("Each run may take", found.timeout_seconds && span(found.timeout_seconds)),
    ...row("If a run fails", sentences(retryWords(found.retry))),
    ...row("If slots keep failing", sentences(stopWords(found))),
    ["Catch-up window", found.catchup_window_seconds === undefined ? "default" : span(found.catchup_window_seconds)],
    ...row("Spread", found.spread_seconds && ["starts up to ", count(found.spread_seconds, "second"), " after each slot"]),
    ...row("First slot", found.starts_at && ["not before ", at(found.starts_at)]),
    ...row("Last slot", found.ends_at && ["not after ", at(found.ends_at)]),
    ...exclusionWords(found).map((words) => ["Days and hours", words]),
    ["Overrides", Object.keys(found.init_params_overrides).length ? json(found.init_params_overrides) : "none"],
    ...row("Taken from the slot", found.init_params_from_slot && fromSlot(found.init_params_from_slot)),
    ["Secrets", secrets.length ? h("ul", { class: "plain-list" }, secrets.map((name) => h("li", {}, h("code", {}, name)))) : "none"],
    ["Webhook", found.webhook_url ? [h("code", { class: "wrap" }, found.webhook_url), found.webhook_secret ? " signed" : " not signed"] : "none"],
    ["ID", found.id],
  ]);
}

/** Return a row, or none if the routine does not have the setting. */
function row(name, content) {
  return content ? [[name, content]] : [];
}

/** @param {string | string[] | null} told */
function sentences(told) {
  return told && [told].flat().map((each) => `${each}. `);
}

function fromSlot(params) {
  return h("ul", { class: "plain-list" }, Object.entries(params).map(([name, reference]) =>
    h("li", {}, h("code", { class: "wrap" }, name), " is ", label(reference).toLowerCase())));
}
