/**
 * Show what became of the slots of a time: the sums, and a line for each routine, those that need a look first. It prints well.
 */

import { address, button, empty, fill, giveWay, h, link, title } from "../dom.js";
import { complaint, isDisabled } from "../components/failure.js";
import { save } from "../components/save.js";
import { spanForm } from "../components/span-form.js";
import { badge } from "../components/strip.js";
import { ALWAYS, NUMBERS } from "../components/today.js";
import { bad, gapsOf, lost, readCsv, readReport, spanOf } from "../report.js";
import { at, duration } from "../time.js";
import { count } from "../words.js";

const ROWS = 200;
/** Numbers that a line repeats of the sums; how many slots never ran is told by the link to them. */
const COLUMNS = NUMBERS.map(([name, text, counts]) => ({ name, text, counts }));

/** Build the page. @param {import("../main.js").Context} context */
export async function report(context) {
  const span = spanOf(context.query);
  try {
    return { name: "Report", body: page(context, span, await readReport(context.session, span, context.signal)) };
  } catch (error) {
    if (isDisabled(error)) return { name: "Report", body: h("div", {}, title("Routines are disabled.")) };
    if (error.status === 400 || error.status === 503) return { name: "Report", body: unread(context, span, error) };
    throw error;
  }
}

function page(context, span, found) {
  const { total, lines } = found;
  const columns = COLUMNS.filter(({ name, counts }) => ALWAYS.includes(name) || counts(total));
  const shown = h("tbody", {}, lines.slice(0, ROWS).map((line) => row(line, columns, span)));
  const rest = lines.slice(ROWS);
  const more = rest.length > 0 && button(`Show ${rest.length.toLocaleString("en")} more`, () => {
    const added = rest.map((line) => row(line, columns, span));
    shown.append(...added);
    giveWay(more, added[0]);
  });
  return h("div", { class: "report" },
    h("div", { class: "headline" }, title(headline(total)), actions(context, span)),
    h("p", { class: "lede" }, context.session.collection, ": slots from ", at(span.from), " to ", at(span.to), "."),
    spanForm(span, null),
    found.completeSince && h("p", { class: "notice" }, "Slots up to ", at(found.completeSince), " may be missing: their time of retention is over."),
    h("ul", { class: "numbers", "aria-label": "All routines" }, columns.map(({ name, text, counts }) => figure(name, text, counts(total)))),
    lines.length > 0 ? h("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Routines" }, h("table", {}, head(columns), shown))
      : empty("Nothing was due", "No slot of any routine falls in this time."),
    h("p", { class: "quiet" }, notes(found)), more);
}

/** Ask for another time: this one is none, or too long to be read at once. */
function unread({ reload }, span, error) {
  return h("div", { class: "report" }, title(error.status === 400 ? "No such time." : "No report."), spanForm(span, error),
    error.status === 503 && h("p", { class: "actions" }, button("Try again", () => reload(), { class: "primary" })));
}

/** Say whether everything did its work. */
function headline(total) {
  const gone = lost(total);
  if (gone) return `${count(gone, "slot")} of ${total.expected.toLocaleString("en")} ${gone === 1 ? "was" : "were"} lost.`;
  if (!total.expected) return "Nothing was due.";
  if (bad(total)) return "What failed was made up for.";
  if (total.pending || total.active) return "Nothing failed so far.";
  return total.completed === total.expected ? "Everything ran." : "Nothing failed.";
}

function actions({ session, signal }, span) {
  const trouble = h("div", {});
  const csv = button("Save as CSV", async () => {
    csv.disabled = true;
    fill(trouble);
    try {
      save(`report-${session.collection}-${span.from.slice(0, 10)}.csv`, await readCsv(session, span, signal), "text/csv");
    } catch (error) {
      if (!signal.aborted) fill(trouble, complaint(error));
    } finally {
      csv.disabled = false;
    }
  }, { id: "csv" });
  return h("div", { class: "actions" }, button("Print", () => print(), { id: "print" }), csv, trouble);
}

function figure(name, text, number) {
  return h("li", { class: `figure ${number ? name : ""}` }, h("strong", {}, number.toLocaleString("en")), " ",
    h("span", { class: "badge" }, number > 0 && h("i", { "aria-hidden": "true" }), text));
}

function head(columns) {
  return h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Routine"), h("th", { scope: "col" }, "what to look at"),
    columns.map(({ text }) => h("th", { scope: "col", class: "number" }, text)),
    h("th", { scope: "col", class: "number" }, "longest delay")));
}

function row(line, columns, span) {
  const path = ["routines", line.task, line.routine];
  return h("tr", { class: lost(line) ? "attention" : null },
    h("th", { scope: "row", class: "who" },
      line.deleted ? h("span", { class: "name" }, line.routine) : link(path, { class: "name" }, line.routine),
      h("span", { class: "quiet" }, line.task, line.deleted && ", deleted since")),
    h("td", {}, state(line), gapsOf(line) > 0 && !line.deleted && [" ",
      h("a", { href: address([...path, "gaps"], { from: span.from, to: span.to }) }, count(gapsOf(line), "gap"),
        h("span", { class: "unseen" }, ` of ${line.routine}`))]),
    columns.map(({ name, counts }) => cell(name, counts(line))),
    h("td", { class: "number" }, line.max_delay_seconds === null ? h("span", { class: "quiet" }, "–") : duration(line.max_delay_seconds)));
}

function cell(name, number) {
  return h("td", { class: `number ${number ? name : "quiet"}` }, number.toLocaleString("en"));
}

/** Say what is left of the troubles of a line. */
function state(line) {
  const gone = lost(line);
  if (gone) return badge("failed", `${gone.toLocaleString("en")} lost`);
  return bad(line) > 0 && badge("completed", "made up for");
}

function notes({ lines, idle, isWhole, total }) {
  return [
    lost(total) > 0 && "Lost are slots that failed, failed to start or were missed, and after which no slot of the routine has completed. ",
    lines.some(gapsOf) && "Gaps are slots that never ran, for whatever reason, and those that failed. ",
    idle > 0 && `${count(idle, "routine")} had no slot in this time. `,
    !isWhole && "The sums count all routines, the list has the first 10,000 by name: the CSV has all.",
  ];
}
