/**
 * Find the page for the part of the address after `#`. Links can be bookmarked and shared, and browsers do not send that
 * part to the service.
 *
 * @typedef {object} Place
 * @property {string | null} collection The collection that it names; null if it names none.
 * @property {string[]} path Its segments, decoded.
 * @property {Record<string, string>} query
 */

import { namedBy } from "./scope.js";

/** Parse the current address. @returns {Place} */
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const segments = path.split("/").filter(Boolean).map(decoded);
  const collection = namedBy(segments[0]);
  return { collection, path: collection === null ? segments : segments.slice(1), query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

/**
 * Return the first route that matches, with the values of its `:names`; null if none does.
 *
 * @template View
 * @param {[string, View][]} routes
 * @param {string[]} path
 * @returns {{view: View, params: Record<string, string>} | null}
 */
export function match(routes, path) {
  for (const [pattern, view] of routes) {
    const segments = pattern.split("/").filter(Boolean);
    const matches = (segment, index) => segment[0] === ":" || segment === path[index];
    if (segments.length !== path.length || !segments.every(matches)) continue;
    const params = Object.fromEntries(segments.flatMap((segment, index) =>
      segment[0] === ":" ? [[segment.slice(1), path[index]]] : []));
    return { view, params };
  }
  return null;
}

/** Open a page. @param {string} hash An address as `address` returns it. */
export function go(hash) {
  location.hash = hash.slice(1);
}

/** Update the address without opening the page again. @param {string} hash */
export function note(hash) {
  history.replaceState(history.state, "", hash);
}

function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
