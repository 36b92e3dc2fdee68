/**
 * Show how far work on several routines has come, then what became of each: first what was not done, and why.
 */

import { button, fill, h, link } from "../dom.js";
import { nameOf } from "../bulk/actions.js";
import { count, listed } from "../words.js";
import { someOf } from "./some.js";
import { badge } from "./strip.js";

const MOST_RESULTS = 200;
/** The states after which something is left to do, with the kind of outcome whose sign each has, and the word. */
const OPEN = [["refused", "failed", "Refused"], ["unknown", "missed", "No answer"], ["waiting", "pending", "Not begun"]];

/**
 * Build the panel.
 *
 * @param {import("../bulk/work.js").Work} work
 * @param {object} does
 * @param {() => void} does.changed Called when it begins or ends.
 * @param {() => void} does.ended Called each time that it has come to an end.
 * @param {() => void} does.close
 */
export function workPanel(work, { changed, ended, close }) {
  const heading = h("h2", { tabindex: "-1", id: "work-heading" });
  const gauge = h("i");
  const [note, told] = [h("p", { class: "quiet" }), h("p", { class: "unseen", role: "status" })];
  const [results, buttons] = [h("div", { class: "results" }), h("div", { class: "actions" })];
  const bar = h("div", { class: "gauge", role: "progressbar", "aria-labelledby": "work-heading", "aria-valuemin": 0, "aria-valuemax": work.items.length }, gauge);
  const element = h("section", { class: "work card", "aria-labelledby": "work-heading" }, heading, bar, note, results, buttons, told);
  /** Whether the buttons and results shown are those of work that goes on; null at first. @type {boolean | null} */
  let wasRunning = null;

  function draw() {
    const over = work.items.length - work.in("waiting", "working").length;
    gauge.style.setProperty("--part", String(over / work.items.length));
    bar.setAttribute("aria-valuenow", String(over));
    bar.hidden = !work.isRunning;
    fill(heading, work.isRunning ? `${work.words.doing}: ${over.toLocaleString("en")} of ${work.items.length.toLocaleString("en")}` : summary(work));
    fill(note, work.note);
    note.hidden = !work.note;
    if (wasRunning === work.isRunning) return;
    const hasEnded = wasRunning === true;
    wasRunning = work.isRunning;
    fill(results, work.isRunning ? null : outcomes(work));
    fill(buttons, work.isRunning ? button("Stop", stop, { id: "work-stop" }) : after());
    changed();
    if (!hasEnded) return;
    fill(told, summary(work));
    // Stop had the focus, and has gone.
    if (!document.querySelector("main")?.contains(document.activeElement)) heading.focus({ preventScroll: true });
    ended();
  }

  function stop(event) {
    event.currentTarget.disabled = true;
    work.stop();
    draw();
  }

  function after() {
    const again = work.in("refused", "unknown").length;
    const rest = work.in("waiting").length;
    return [
      rest > 0 && button(`Go on with the ${rest.toLocaleString("en")} that were not begun`, () => work.start("waiting"), { id: "work-on", class: "primary" }),
      again > 0 && button(`Try the ${again.toLocaleString("en")} again`, () => work.start("refused", "unknown"), { id: "work-again" }),
      button("Close", close, { id: "work-close" }),
    ];
  }

  work.changed = draw;
  draw();
  return { element, focus: () => heading.focus() };
}

/** Say what became of all: "9 of 12 paused. 1 was refused, 2 have no answer." @param {import("../bulk/work.js").Work} work */
export function summary(work) {
  const number = (state) => work.in(state).length;
  const [done, total] = [number("done"), work.items.length];
  const others = [
    number("left") && count(number("left"), "needed nothing any more", "needed nothing any more"),
    number("refused") && count(number("refused"), "was refused", "were refused"),
    number("unknown") && count(number("unknown"), "has no answer", "have no answer"),
    number("waiting") && count(number("waiting"), "was not begun", "were not begun"),
  ].filter(Boolean);
  const all = done === total ? (total === 1 ? "1" : `All ${total.toLocaleString("en")}`) : `${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
  return `${all} ${work.words.done}.${others.length ? ` ${listed(others)}.` : ""}`;
}

/** Show what became of each. @param {import("../bulk/work.js").Work} work */
function outcomes(work) {
  const open = OPEN.flatMap(([state, kind, text]) => work.in(/** @type {any} */ (state)).map((item) => ({ item, kind, text })));
  const rest = open.length - MOST_RESULTS;
  const [done, left] = [work.in("done"), work.in("left")];
  return [
    open.length > 0 && h("ul", { class: "open" }, open.slice(0, MOST_RESULTS).map(({ item, kind, text }) => h("li", {}, badge(kind, text), h("div", {}, line(item))))),
    rest > 0 && h("p", { class: "quiet" }, `and ${rest.toLocaleString("en")} more`),
    left.length > 0 && someOf(`${left.length.toLocaleString("en")} needed nothing any more`, left.map(line)),
    done.length > 0 && someOf(`${done.length.toLocaleString("en")} ${work.words.done}`, done.map(line)),
  ];
}

/** @param {import("../bulk/work.js").Item} item */
function line({ job: { routine, run: about }, result: { text, run } }) {
  return [link(["routines", routine.task_name, routine.name], {}, nameOf(routine)), about && h("span", { class: "quiet" }, `, ${about}`), text && `: ${text}`,
    run && [" ", link(["runs", routine.task_name, run], {}, "Open run ", String(run))]];
}
