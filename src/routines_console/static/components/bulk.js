/**
 * Select routines of the overview and do something with all of them: ask with a preview, then show the work and its results.
 */

import { cancelAll } from "../bulk/cancel.js";
import { csvOf } from "../bulk/csv.js";
import { pauseAll, resumeAll } from "../bulk/pause.js";
import { rerunAll } from "../bulk/rerun.js";
import { Work } from "../bulk/work.js";
import { fill, h } from "../dom.js";
import { stamp } from "../load.js";
import { now } from "../time.js";
import { count } from "../words.js";
import { askForAll } from "./bulk-ask.js";
import { bulkBar } from "./bulk-bar.js";
import { picks } from "./picks.js";
import { save } from "./save.js";
import { summary, workPanel } from "./work-panel.js";

/**
 * Build the parts of the page.
 *
 * @param {import("../main.js").Context} context
 * @param {HTMLElement} list
 * @param {import("../selection.js").Selection} selection
 * @param {object} page
 * @param {() => import("../fleet.js").Entry[]} page.entries All routines that have been read.
 * @param {() => string} page.from Since when failures count.
 * @param {() => void} page.refresh Called when routines may have changed.
 */
export function bulk({ session, signal, say }, list, selection, { entries, from, refresh }) {
  const panel = h("div", {});
  const selected = () => entries().filter(({ routine }) => selection.ids.has(routine.id));
  const rows = picks(list, selection, () => bar.draw());
  const asking = (action) => () => ask(action(selected()));
  const bar = bulkBar(selection, () => { rows.settle(); bar.draw(); }, [
    ["pause", "Pause…", asking((chosen) => pauseAll(session, chosen))],
    ["resume", "Resume…", asking((chosen) => resumeAll(session, chosen))],
    ["rerun", "Run again…", asking((chosen) => rerunAll(session, chosen, from()))],
    ["cancel", "Cancel runs…", asking((chosen) => cancelAll(session, chosen))],
    ["csv", "Export CSV", saveCsv],
  ]);

  async function ask(action) {
    const plan = await askForAll(action, selection.ids.size);
    if (!plan || signal.aborted) return;
    const work = new Work(plan.words, plan.jobs);
    session.work = work;
    show(work).focus();
    await work.start("waiting");
    if (signal.aborted) say(summary(work));
  }

  function saveCsv() {
    const chosen = selected();
    save(`routines-${session.collection}-${stamp(now()).slice(0, 10)}.csv`, csvOf(chosen), "text/csv");
    say(`${count(chosen.length, "routine was", "routines were")} saved.`);
  }

  /** Show the work, also that which was begun before the user was on another page. */
  function show(work) {
    const shown = workPanel(work, {
      changed: () => bar.busy(work.isRunning),
      ended: refresh,
      close() {
        session.work = null;
        fill(panel);
        bar.focus();
      },
    });
    fill(panel, shown.element);
    return shown;
  }

  if (session.work) show(session.work);
  return { head: bar.head, bar: bar.element, panel, box: rows.box, draw: bar.draw };
}
