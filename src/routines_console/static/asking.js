/**
 * Ask before something is lost: changes that were not saved, work that is going on.
 */

import { confirm } from "./components/confirm.js";
import { hasChanges } from "./unsaved.js";

let isAsking = false;

/** Return whether there are no changes that leaving the page would lose, or the user gives them up. */
export async function maySetAside() {
  return !hasChanges(document.body)
    || ask("Leave without saving?", "What you changed on this page has not been saved.", "Leave");
}

/**
 * Return whether nothing is being done with several routines, or the user lets it stop; it is stopped then.
 *
 * @param {import("./bulk/work.js").Work | null | undefined} work What a session does.
 * @param {string} leaving What the user is about to do: "Sign out", "Switch to demo".
 */
export async function mayStop(work, leaving) {
  if (!work?.goesOn) return true;
  const rest = work.in("waiting", "working").length;
  const told = `${work.words.doing} is going on: ${rest.toLocaleString("en")} of ${work.items.length.toLocaleString("en")} are left.`;
  if (!await ask(`${leaving} and stop?`, told, leaving)) return false;
  work.stop();
  return true;
}

/** Ask one question at a time: while one is open, the answer to another is no. */
async function ask(question, consequence, leaving) {
  if (isAsking) return false;
  isAsking = true;
  try {
    return await confirm(question, consequence, leaving, "Stay here");
  } finally {
    isAsking = false;
  }
}
