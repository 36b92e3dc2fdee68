/**
 * Ask how long to pause a routine, and why; show how long it is paused.
 */

import { clockName } from "../clock.js";
import { button, fill, h } from "../dom.js";
import { at } from "../time.js";
import { complaint } from "./failure.js";
import { clearErrors, field, focusError, showError, showErrors } from "./fields.js";
import { momentField, momentForm } from "./moment.js";

export const MOST_CHARACTERS = 500;

/**
 * Open the dialog and return whether the routine was paused.
 *
 * @param {any} routine A paused routine begins with its end and its note.
 * @param {(body: any) => Promise<void>} send Sends the request; the dialog shows its error.
 * @returns {Promise<boolean>}
 */
export function askForPause(routine, send) {
  return new Promise((resolve) => {
    const until = momentField("pause-until-time", routine.paused_until);
    const note = h("input", { id: "pause-note", maxlength: MOST_CHARACTERS, value: routine.paused_note, autocomplete: "off" });
    const trouble = h("div", {});
    const form = h("form", { onsubmit, novalidate: true },
      h("h2", { id: "pause-heading" }, routine.paused ? "Change the pause" : "Pause this routine"),
      field("until", `Until (${clockName()})`, until.input, "It then resumes by itself. Leave it empty to pause until someone resumes it."),
      field("note", "Note", note, "Shown with the pause and with each slot that falls in it."),
      trouble,
      h("div", { class: "actions" }, h("button", { class: "primary", id: "pause-save" }, routine.paused ? "Save" : "Pause"), button("Cancel", () => end(false))));
    const dialog = h("dialog", { "aria-labelledby": "pause-heading", onclose: () => end(false) }, form);

    async function onsubmit(event) {
      event.preventDefault();
      clearErrors(form);
      fill(trouble);
      const time = until.read();
      if (time === undefined) {
        showError(form, "until", momentForm());
        return focusError(form);
      }
      try {
        await send({ until: time, note: note.value.trim() || null });
        end(true);
      } catch (error) {
        if (!showErrors(form, error)) fill(trouble, complaint(error));
      }
    }

    function end(answer) {
      resolve(answer);
      dialog.remove();
    }

    document.body.append(dialog);
    dialog.showModal();
    until.input.focus();
  });
}

/** Show until when a routine is paused, and the note; null if it has neither. @param {any} routine */
export function pauseNotice(routine) {
  const { paused_until: until, paused_note: note } = routine;
  if (!until && !note) return null;
  return h("p", { class: "notice" }, "Paused", until && [" until ", at(until)], note && [" · ", note]);
}
