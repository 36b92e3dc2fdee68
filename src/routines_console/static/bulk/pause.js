/**
 * Pause routines, or resume them.
 */

import { clockName } from "../clock.js";
import { h } from "../dom.js";
import { stamp } from "../load.js";
import { now } from "../time.js";
import { count } from "../words.js";
import { clearErrors, field, focusError, showError } from "../components/fields.js";
import { momentField, momentForm } from "../components/moment.js";
import { MOST_CHARACTERS } from "../components/pause.js";
import { effect, parted, pathOf, readAgain } from "./actions.js";

const isPaused = ({ routine }) => routine.paused;

/**
 * @param {import("../session.js").Session} session
 * @param {import("../fleet.js").Entry[]} entries
 * @returns {import("./actions.js").Action}
 */
export function pauseAll(session, entries) {
  const [paused, others] = parted(entries, isPaused);
  const until = momentField("bulk-until", null);
  const note = h("input", { id: "bulk-note", maxlength: MOST_CHARACTERS, autocomplete: "off" });
  const also = h("input", { type: "checkbox", id: "bulk-also" });
  const given = () => ({ until: until.read(), note: note.value.trim() || null });

  const job = ({ routine }, body) => ({
    routine,
    check: async (patience) => {
      const found = await readAgain(session, routine, patience);
      return found.paused && !also.checked ? { text: "Was paused already, and stays as it is." } : null;
    },
    send: async (patience) => {
      await session.api.send("POST", [...pathOf(session, routine), "pause"], body, undefined, patience);
      return { text: "Paused." };
    },
  });

  return {
    heading: `Pause ${count(entries.length, "routine")}`,
    fields: [
      field("until", `Until (${clockName()})`, until.input, "They then resume by themselves. Leave it empty to pause until someone resumes them."),
      field("note", "Note", note, "Shown with the pause and with each slot that falls in it."),
      paused.length > 0 && h("label", { class: "toggle" }, also, "Give this end and note to those that are paused already, too"),
    ],
    look: async () => {},
    plan() {
      const wanted = also.checked ? entries : others;
      const body = given();
      return {
        effects: [effect(others, "will be paused.", "will be paused."),
          effect(paused, also.checked ? "is paused already, and gets this end and note." : "is paused already, and stays as it is.",
            also.checked ? "are paused already, and get this end and note." : "are paused already, and stay as they are.")].filter((each) => each !== null),
        notes: ["Runs that are going on go on. Slots that fall in the pause are not made up for."],
        jobs: wanted.map((entry) => job(entry, body)),
        verb: `Pause ${count(wanted.length, "routine")}`,
        words: { doing: "Pausing", done: "paused" },
      };
    },
    isValid(form) {
      clearErrors(form);
      const time = until.read();
      if (time === undefined) showError(form, "until", momentForm());
      else if (time && time <= stamp(now())) showError(form, "until", "must be later than now");
      else return true;
      focusError(form);
      return false;
    },
  };
}

/**
 * @param {import("../session.js").Session} session
 * @param {import("../fleet.js").Entry[]} entries
 * @returns {import("./actions.js").Action}
 */
export function resumeAll(session, entries) {
  const [paused, others] = parted(entries, isPaused);
  const [byScheduler] = parted(paused, ({ recent }) => Boolean(recent?.paused_reason));

  const job = ({ routine }) => ({
    routine,
    check: async (patience) => (await readAgain(session, routine, patience)).paused ? null : { text: "Was resumed already." },
    send: async (patience) => {
      await session.api.send("POST", [...pathOf(session, routine), "resume"], undefined, undefined, patience);
      return { text: "Resumed." };
    },
  });

  return {
    heading: `Resume ${count(entries.length, "routine")}`,
    fields: [],
    look: async () => {},
    plan: () => ({
      effects: [effect(paused, "will be resumed."), effect(byScheduler, "of them was paused by the scheduler after failures.", "of them were paused by the scheduler after failures."),
        effect(others, "is not paused, and stays as it is.", "are not paused, and stay as they are.")].filter((each) => each !== null),
      notes: ["The next slots count from now. Those that fell in the pause are not made up for."],
      jobs: paused.map(job),
      verb: `Resume ${count(paused.length, "routine")}`,
      words: { doing: "Resuming", done: "resumed" },
    }),
  };
}
