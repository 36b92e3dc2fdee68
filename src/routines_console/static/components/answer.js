/**
 * Show what was answered to a request of a step or a webhook that failed.
 */

import { h } from "../dom.js";
import { json } from "./json-tree.js";

/** Build it; null if there was no answer. @param {any} answer */
export function answered(answer) {
  return answer && h("details", {}, h("summary", {}, `What was answered: ${answer.status}`), json(answer));
}
