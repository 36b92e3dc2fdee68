/**
 * Build what can be done with a routine: run it now, pause or resume it, edit it, delete it.
 */

import { IdempotencyKeys, Problem } from "../api.js";
import { address, button, fill, link } from "../dom.js";
import { go } from "../router.js";
import { confirm, confirmByName } from "./confirm.js";
import { complaint } from "./failure.js";
import { askForPause } from "./pause.js";

/**
 * Build the actions.
 *
 * @param {import("../main.js").Context} context
 * @param {string[]} path The path of the routine in the API.
 * @param {HTMLElement} trouble Where it is said that one has failed.
 */
export function routineActions(context, path, trouble) {
  const { api } = context.session;
  const keys = new IdempotencyKeys();
  let isBusy = false;

  /** Disable the button while it works, and show errors below the buttons. */
  const doing = (work) => async (event) => {
    const pressed = event.currentTarget;
    pressed.disabled = true;
    isBusy = true;
    fill(trouble);
    try {
      await work();
    } catch (error) {
      keys.answered(error);
      fill(trouble, complaint(error));
    } finally {
      isBusy = false;
      pressed.disabled = false;
      if (!document.querySelector("main")?.contains(document.activeElement)) pressed.focus();
    }
  };
  const start = (body) => api.send("POST", [...path, "run-now"], body, keys.keyFor(body));

  /** Start a run; beside one that is going on only if the user wants that. Returns null if not. */
  async function startOne() {
    try {
      return await start({ respect_overlap: true });
    } catch (error) {
      if (!(error instanceof Problem && error.status === 409)) throw error;
      keys.answered(error);
      const sure = await confirm("Start a second run?", `${error.message} The new one would go on beside it.`, "Run now", "Leave it");
      return sure ? start(undefined) : null;
    }
  }

  const runNow = (found) => doing(async () => {
    const started = await startOne();
    if (!started) return;
    context.say(started.message);
    go(address(["runs", found.task_name, started.trajectory_id]));
  });
  const toggle = (found) => doing(async () => {
    await api.send("POST", [...path, found.paused ? "resume" : "pause"]);
    context.say(found.paused ? `${found.name} was resumed.` : `${found.name} was paused.`);
    await context.reload("toggle");
  });
  const pauseUntil = (found) => doing(async () => {
    if (!await askForPause(found, (body) => api.send("POST", [...path, "pause"], body))) return;
    context.say(found.paused ? `The pause of ${found.name} was changed.` : `${found.name} was paused.`);
    await context.reload("pause-until");
  });
  const remove = (found) => doing(async () => {
    const sure = await confirmByName("Delete this routine?", found.name,
      "This also deletes its schedule and its secrets. Its runs are kept. This cannot be undone.", "Delete routine");
    if (!sure) return;
    await api.send("DELETE", path);
    context.say(`${found.name} was deleted.`);
    go(address([]));
  });
  return {
    /** Return whether one of them is going on, so that nothing should be drawn again. */
    isBusy: () => isBusy,
    /** Build the buttons. @param {any} found The routine as it is. */
    buttons: (found) => [
      button("Run now", runNow(found), { class: "primary", id: "run-now" }),
      button(found.paused ? "Resume" : "Pause", toggle(found), { id: "toggle" }),
      button(found.paused ? "Change pause…" : "Pause until…", pauseUntil(found), { id: "pause-until" }),
      link(["routines", found.task_name, found.name, "edit"], { class: "button", id: "edit" }, "Edit"),
      button("Delete", remove(found), { class: "danger", id: "delete" }),
    ],
  };
}
