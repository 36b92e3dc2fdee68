/**
 * Show what went wrong, and what to do about it.
 */

import { Problem } from "../api.js";
import { button, h, link } from "../dom.js";

const ADVICE = {
  0: "Is the API running, and is this machine online? Nothing is lost: routines run without the console.",
  404: "It was deleted or renamed, or this key has no access to it.",
  429: "This key has sent too many requests. Wait a moment.",
  500: "The service failed. See its log for the cause.",
  503: "The database or the file store is unavailable. The service reconnects by itself.",
};

/**
 * Build the page that is shown in place of one that failed.
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
    h("p", { class: "quiet" }, known ? error.advice ?? ADVICE[error.status] ?? "" : "Reload the page. If it happens again, please report it."),
    h("p", { class: "actions" },
      again && button("Try again", again, { class: "primary" }),
      link([], { class: "button" }, "Go to the overview")));
}

/**
 * Build a one-line message to show next to what failed.
 *
 * @param {any} error
 */
export function complaint(error) {
  return h("p", { class: "notice bad", role: "alert" }, error instanceof Problem ? error.message : String(error));
}

/** Return whether an error means that routines are disabled: the service then answers 404. @param {any} error */
export function isDisabled(error) {
  return error instanceof Problem && error.status === 404;
}
