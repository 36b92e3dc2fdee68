/**
 * Show the revisions of a routine, newest first, each with a button that restores it.
 */

import { button, empty, fill, h } from "../dom.js";
import { restoring } from "../differences.js";
import { go } from "../router.js";
import { at } from "../time.js";
import { listed } from "../words.js";
import { change } from "./change.js";
import { confirm } from "./confirm.js";
import { difference } from "./difference.js";
import { complaint } from "./failure.js";
import { pages } from "./pages.js";

const PAGE = 10;

/**
 * Build the list; it loads itself.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The routine's path in the API.
 * @param {string} editing The address of the page that edits the routine.
 */
export function revisions(context, path, editing) {
  const { session: { api }, signal } = context;
  const trouble = h("div", {});
  /** The changes read so far, newest first. @type {any[]} */
  let known = [];

  async function read(cursor) {
    const page = await api.page([...path, "revisions"], { limit: PAGE, cursor }, signal);
    known = cursor === null ? page.items : [...known, ...page.items];
    return { items: page.items, next: page.cursor };
  }

  function row(entry) {
    const isNewest = entry === known[0];
    if (isNewest) return change(entry, null, h("span", { class: "quiet" }, "as it is now"));
    const { changed, lost } = restoring(known, entry.revision);
    const isRestorable = entry.action !== "deleted" && changed.length + lost.length > 0;
    return change(entry, null, isRestorable && button(["Restore", h("span", { class: "unseen" }, ` revision ${entry.revision}`)],
      (event) => restore(entry, event.currentTarget), { id: `restore-${entry.revision}` }));
  }

  async function restore(entry, pressed) {
    const { changed, lost } = restoring(known, entry.revision);
    if (!await confirm(`Restore revision ${entry.revision}?`, consequence(entry, changed, lost), "Restore", "Leave it as it is")) return;
    pressed.disabled = true;
    fill(trouble);
    try {
      const restored = await api.send("POST", [...path, "revisions", entry.revision, "restore"]);
      context.say(`Revision ${entry.revision} of ${restored.name} was restored.`);
      await (lost.length && await askForSecrets(lost) ? go(editing) : context.reload("revisions"));
    } catch (error) {
      pressed.disabled = false;
      fill(trouble, complaint(error));
    }
  }

  const nothing = () => empty("No revisions", "Their time of retention is over.");
  const list = pages({ kind: "changes", read, row, nothing, more: "Older revisions" }, signal);
  list.element.prepend(trouble);
  list.load();
  return list;
}

/** Say what restoring a revision does. */
function consequence({ at: time, revision }, changed, lost) {
  return [
    h("p", {}, "From its next slot on, the routine does again what it did since ", at(time), ". This is a revision of its own, so it can be undone. Its name and its pause stay."),
    changed.length > 0 && [h("p", {}, "This changes:"), difference(changed)],
    lost.length > 0 && h("p", { class: "notice" }, `Revision ${revision} had ${listed(lost)}, which the routine has no longer. Values of secrets are not kept: enter them afterwards.`),
  ];
}

/** Ask whether to enter the secrets that could not be restored. */
function askForSecrets(lost) {
  return confirm("Restored, without its secrets", `Their values are not kept: ${listed(lost)}. Runs that need them fail until you enter them.`, "Enter them now", "Later");
}
