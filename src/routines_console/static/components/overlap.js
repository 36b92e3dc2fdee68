/**
 * Build the inputs for what becomes of a slot that comes while a run is active.
 */

import { h } from "../dom.js";
import { field, numberOrNull } from "./fields.js";

const POLICIES = [
  ["skip", "Skip the slot"], ["queue_one", "Let it wait for the run to end"],
  ["cancel_other", "Cancel the run, then start"], ["allow", "Start another run beside it"],
];

/**
 * Build the inputs.
 *
 * @param {any} given What the routine has now: `overlap_policy`, `max_concurrent`.
 */
export function overlap(given) {
  const policy = h("select", { id: "overlap", onchange: turned },
    POLICIES.map(([value, text]) => h("option", { value, selected: value === given.overlap_policy }, text)));
  const most = h("input", { id: "most", type: "number", min: 1, max: 100, value: given.max_concurrent ?? 2 });
  const limit = field("max_concurrent", "Runs at once, at most", most, "From 1 to 100. Slots beyond are skipped.");

  function turned() {
    limit.hidden = policy.value !== "allow";
  }
  turned();
  return {
    element: h("div", {},
      field("overlap_policy", "If a run is active when a slot comes", policy, "At most one slot waits; a later one takes its place."), limit),
    read: () => ({ overlap_policy: policy.value, ...policy.value === "allow" ? { max_concurrent: numberOrNull(most) } : {} }),
  };
}
