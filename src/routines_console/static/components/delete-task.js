/**
 * Delete a task: ask first, and say what goes with it. With routines it cannot be deleted, so that is said instead.
 */

import { address, button, fill, h, link } from "../dom.js";
import { count, listed } from "../words.js";
import { confirmByName } from "./confirm.js";
import { complaint, isDisabled } from "./failure.js";

const MOST_NAMES = 10;

/**
 * Build the button.
 *
 * @param {import("../main.js").Context} context
 * @param {string} task
 * @param {HTMLElement} trouble Where to say that it cannot be done.
 */
export function deleteTask({ session: { api, collection }, say, done }, task, trouble) {
  async function remove() {
    const routines = await known(api.get(["routines", collection, task], { limit: MOST_NAMES + 1 }));
    if (routines.length) return fill(trouble, refusal(task, routines));
    const [feeds, rules] = await Promise.all([known(api.get(["ics", collection])), known(api.get(["alert-rules", collection]))]);
    const consequence = lost(feeds.filter((feed) => feed.task === task), rules.filter(({ scope }) => scope.task === task));
    if (!await confirmByName("Delete this task?", task, consequence, "Delete task")) return;
    await api.send("DELETE", ["tasks", collection, task]);
    say(`${task} was deleted.`);
    done(address(["tasks"]));
  }

  const element = button("Delete", async () => {
    element.disabled = true;
    fill(trouble);
    try {
      await remove();
    } catch (error) {
      fill(trouble, complaint(error));
    } finally {
      element.disabled = false;
      if (!document.querySelector("main")?.contains(document.activeElement)) element.focus();
    }
  }, { class: "danger", id: "delete" });
  return element;
}

/** Return what was read; nothing if routines are disabled. @param {Promise<any[]>} reading */
function known(reading) {
  return reading.catch((error) => {
    if (isDisabled(error)) return [];
    throw error;
  });
}

function refusal(task, routines) {
  const names = routines.slice(0, MOST_NAMES).map(({ name }, index) => [index > 0 && ", ", link(["routines", task, name], {}, name)]);
  return h("p", { class: "notice", role: "alert" }, "A task cannot be deleted while it has routines. Delete them first: ", names,
    routines.length > MOST_NAMES && ", and others", ".");
}

function lost(feeds, rules) {
  const also = [feeds.length > 0 && count(feeds.length, "calendar feed"), rules.length > 0 && `the alert ${rules.length === 1 ? "rule" : "rules"} ${listed(rules.map(({ name }) => name))}`];
  return [
    also.some(Boolean) && `This also deletes ${listed(also.filter(Boolean))}.`,
    "Its runs are kept, and those that are going on continue. Steps of other tasks that start it will fail. This cannot be undone.",
  ].filter(Boolean).join(" ");
}
