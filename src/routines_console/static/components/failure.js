/**
 * What went wrong, and what to do about it.
 */

import { Problem } from "../api.js";
import { button, h, link } from "../dom.js";

const ADVICE = {
  0: "Is the API running, and is this machine online? Nothing was lost: the schedule goes on without the console.",
  404: "It was deleted or renamed, or this key may not see it.",
  429: "This key asks more than it may. Wait a moment.",
  500: "The service failed. Its log has the cause.",
  503: "The database or the file store is away. The service tries again by itself.",
};

/**
 * A page in the place of one that cannot be shown.
 *
 * @param {any} error
 * @param {{again?: () => void}} [options]
 */
export function failure(error, { again } = {}) {
  const known = error instanceof Problem;
  if (!known) console.error(error);
  return h("div", { class: "failure", role: "alert" },
    h("h1", { tabindex: "-1" }, known ? error.title : "The console failed"),
    h("p", {}, known ? error.message : String(error?.message ?? error)),
    h("p", { class: "quiet" }, known ? ADVICE[error.status] ?? "" : "Load the page again; if it happens again, report it."),
    h("p", { class: "actions" },
      again && button("Try again", again, { class: "primary" }),
      link([], { class: "button" }, "To the overview")));
}

/**
 * The same in one line, beside what failed.
 *
 * @param {any} error
 */
export function complaint(error) {
  return h("p", { class: "notice bad", role: "alert" }, error instanceof Problem ? error.message : String(error));
}

/** Whether routines are switched off in the service, which then has no such path. @param {any} error */
export function isSwitchedOff(error) {
  return error instanceof Problem && error.status === 404;
}
