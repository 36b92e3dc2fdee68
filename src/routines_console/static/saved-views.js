/**
 * Keep filters of the overview under names, in this browser. A view is an address of the console: it holds no key, and nothing that the
 * service has said.
 *
 * @typedef {{name: string, query: Record<string, string>}} SavedView
 */

const STORED = "routines.views";

/**
 * Return the views of a collection, by name; none if the browser keeps nothing.
 *
 * @param {string} collection
 * @returns {SavedView[]}
 */
export function savedViews(collection) {
  const views = all()[collection];
  return Array.isArray(views) ? views.filter(isView) : [];
}

/**
 * Save a view, in place of one with the same name. Throws if the browser does not keep it.
 *
 * @param {string} collection
 * @param {SavedView} view
 */
export function saveView(collection, view) {
  const others = savedViews(collection).filter(({ name }) => name !== view.name);
  store(collection, [...others, view].sort((one, other) => one.name.localeCompare(other.name)));
}

/**
 * @param {string} collection
 * @param {string} name
 */
export function deleteView(collection, name) {
  store(collection, savedViews(collection).filter((each) => each.name !== name));
}

/** @param {string} collection @param {SavedView[]} views */
function store(collection, views) {
  const { [collection]: _, ...others } = all();
  const rest = views.length ? { ...others, [collection]: views } : others;
  if (Object.keys(rest).length) localStorage.setItem(STORED, JSON.stringify(rest));
  else localStorage.removeItem(STORED);
}

/** @returns {Record<string, any>} */
function all() {
  try {
    const found = JSON.parse(localStorage.getItem(STORED) ?? "{}");
    return found !== null && typeof found === "object" ? found : {};
  } catch {
    // Someone else has written there, or the browser refuses.
    return {};
  }
}

function isView(view) {
  return typeof view?.name === "string" && view.query !== null && typeof view.query === "object"
    && Object.values(view.query).every((each) => typeof each === "string");
}
