/**
 * Pages by the part of the address after `#`: links can be kept and sent, and nothing of them reaches the service.
 *
 * @typedef {object} Place
 * @property {string[]} path The decoded parts.
 * @property {Record<string, string>} query
 */

/** Where the address leads. @returns {Place} */
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decoded), query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

/**
 * The first route that fits, with what its `:names` stand for.
 *
 * @template View
 * @param {[string, View][]} routes
 * @param {string[]} path
 * @returns {{view: View, params: Record<string, string>} | null}
 */
export function match(routes, path) {
  for (const [pattern, view] of routes) {
    const parts = pattern.split("/").filter(Boolean);
    if (parts.length !== path.length || !parts.every((part, index) => part[0] === ":" || part === path[index])) continue;
    const params = Object.fromEntries(parts.flatMap((part, index) => part[0] === ":" ? [[part.slice(1), path[index]]] : []));
    return { view, params };
  }
  return null;
}

/** Open a page. @param {string} hash As `address` makes it. */
export function go(hash) {
  location.hash = hash.slice(1);
}

/** Say in the address what a page shows, without opening it anew. @param {string} hash */
export function note(hash) {
  history.replaceState(null, "", hash);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
