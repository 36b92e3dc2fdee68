/**
 * Build the filters of the list of routines, and the choice of its order.
 */

import { fill, h } from "../dom.js";

const STATES = [["", "All"], ["attention", "Needs attention"], ["running", "Running"], ["paused", "Paused"],
  ["other", "Skipped, cancelled"], ["silent", "Never ran"]];
const ORDERS = [["", "Trouble first"], ["name", "By name"], ["next", "Next slot first"], ["last", "Last outcome first"]];

/**
 * Return the filter that an address names. A state that there is not stands for all of them, such an order for the first.
 *
 * @param {Record<string, string>} query
 */
export function filterOf({ q = "", state = "", task = "", sort = "" }) {
  const known = (list, name) => list.some(([each]) => each === name) ? name : "";
  return { q, task, state: known(STATES, state), sort: known(ORDERS, sort) };
}

/**
 * Build the form.
 *
 * @param {{q: string, state: string, task: string, sort: string}} given The filter to begin with.
 * @param {(filter: Record<string, string>) => void} changed Called with each new filter.
 */
export function filters(given, changed) {
  const search = h("input", { id: "search", type: "search", value: given.q, placeholder: "Name or task", autocomplete: "off", oninput: tell });
  const task = h("select", { id: "task-filter", onchange: tell }, h("option", { value: "" }, "All tasks"));
  const sort = h("select", { id: "sort", onchange: tell }, ORDERS.map(([name, text]) => h("option", { value: name, selected: name === given.sort }, text)));
  const counts = new Map(STATES.map(([state]) => [state, h("span", { class: "number" })]));
  const radios = STATES.map(([state, text]) => h("label", {},
    h("input", { type: "radio", name: "state", value: state, checked: given.state === state, oninput: tell }),
    h("span", {}, text, " ", counts.get(state))));
  const element = h("form", { class: "filters", role: "search", "aria-label": "Routines", onsubmit: (event) => event.preventDefault() },
    h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, "State"), radios),
    h("label", { class: "unseen", for: "search" }, "Search"), search,
    h("label", { class: "unseen", for: "task-filter" }, "Task"), task,
    h("label", { class: "unseen", for: "sort" }, "Order"), sort);
  let offered = "";

  function tell() {
    const state = element.querySelector("input[name=state]:checked")?.value ?? "";
    changed({ q: search.value, state, task: task.value, sort: sort.value });
  }

  return {
    element,
    /**
     * Offer these tasks, and show how many routines are in each state.
     *
     * @param {string[]} tasks
     * @param {Record<string, number>} tally
     */
    offer(tasks, tally) {
      const total = Object.values(tally).reduce((sum, number) => sum + number, 0);
      for (const [state, place] of counts) fill(place, (state ? tally[state] : total).toLocaleString("en"));
      const chosen = offered ? task.value : given.task;
      // The address may name a task that has no routines: it filters, so it is shown.
      const names = [...new Set([...tasks, chosen].filter(Boolean))];
      if (JSON.stringify(names) === offered) return;
      offered = JSON.stringify(names);
      fill(task, h("option", { value: "" }, "All tasks"), names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
    },
  };
}
