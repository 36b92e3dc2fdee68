/**
 * Ask for an API key; the service checks it before it is stored. The user may have keys of other collections already.
 */

import { Problem } from "../api.js";
import { button, fill, h } from "../dom.js";
import { signIn } from "../session.js";

const PRINTABLE = /^[\x21-\x7e]+$/;

/**
 * Build the page.
 *
 * @param {string} reason Why the user has to sign in; empty on the first visit.
 * @param {(session: import("../session.js").Session) => void} done Called once the key has been accepted.
 * @param {string[]} others The collections that there are keys for.
 * @param {(collection: string) => void} back Called when the user goes back to one of them.
 */
export function signInPage(reason, done, others, back) {
  const input = h("input", {
    id: "key", name: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    autocapitalize: "off", placeholder: "rtn_…", "aria-describedby": "key-hint key-error",
  });
  const error = h("p", { id: "key-error", class: "field-error", role: "alert" });
  const submit = h("button", { class: "primary" }, "Sign in");

  async function onsubmit(event) {
    event.preventDefault();
    submit.disabled = true;
    fill(error);
    input.removeAttribute("aria-invalid");
    try {
      done(await checked(input.value.trim()));
    } catch (problem) {
      fill(error, advice(problem));
      input.setAttribute("aria-invalid", "true");
      input.select();
    } finally {
      submit.disabled = false;
    }
  }

  return h("main", { class: "alone sign-in" },
    h("div", { class: "mark big", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i")),
    h("h1", {}, "Routines"),
    h("p", { class: "lede" }, "Did everything run? If not, why?"),
    reason && h("p", { class: "notice", role: "status" }, reason),
    h("form", { onsubmit, novalidate: true },
      h("label", { for: "key" }, "API key"), input, error,
      h("p", { id: "key-hint", class: "hint" },
        "The key stays in the tabs of this console and is forgotten when you sign out or close them. Create one with ",
        h("code", {}, "routines keys create --collection NAME"), "; ", h("code", {}, "routines up"),
        " stores the demo key in ", h("code", {}, ".routines/demo.key"), "."),
      submit),
    others.length > 0 && h("p", { class: "actions" }, others.map((each) => button(`Back to ${each}`, () => back(each), { class: "plain" }))));
}

async function checked(key) {
  if (!PRINTABLE.test(key)) throw new Problem(401, { detail: "Enter the whole key: it starts with rtn_." });
  return signIn(key);
}

/** @param {any} problem */
function advice(problem) {
  if (!(problem instanceof Problem)) return String(problem);
  if (problem.status !== 401) return problem.message;
  return /mistyped|whole key/.test(problem.message)
    ? problem.message
    : "This key does not work: it is unknown, was revoked or has expired. Check it, or create a new one.";
}
