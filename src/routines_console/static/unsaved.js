/**
 * Notice changes in forms that leaving the page would lose. A form takes part by the attribute `data-guarded`.
 */

/** @type {WeakMap<HTMLFormElement, string>} What each form had in it when its page was opened. */
const opened = new WeakMap();

/** Remember what the forms of a page have in them. @param {Element} page */
export function watch(page) {
  for (const form of guarded(page)) opened.set(form, content(form));
}

/** Return whether a form of the page has other content than when it was opened. @param {Element} page */
export function hasChanges(page) {
  return guarded(page).some((form) => opened.has(form) && opened.get(form) !== content(form));
}

/** Give up the changes in the forms of a page: they were saved, or the user wants to lose them. @param {Element} page */
export function release(page) {
  for (const form of guarded(page)) opened.delete(form);
}

/** @returns {HTMLFormElement[]} */
function guarded(page) {
  return [...page.querySelectorAll("form[data-guarded]")];
}

function content(form) {
  const inputs = [...form.elements].filter((each) => each.matches("input, select, textarea"));
  return JSON.stringify(inputs.map((each) => /^(checkbox|radio)$/.test(each.type) ? each.checked : each.value));
}
