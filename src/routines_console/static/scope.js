/**
 * Name the collection in the addresses of pages, as #/~demo/tasks, while the console has keys of several: a link that is opened in another
 * tab then goes by the right one. No page is called ~, and no name of a collection has that sign.
 */

const SIGN = "~";
let named = "";

/** Name this collection from now on; an empty text for none. @param {string} collection */
export function nameCollection(collection) {
  named = collection;
}

/** Return what the addresses of pages begin with. */
export function prefix() {
  return named && `${SIGN}${encodeURIComponent(named)}/`;
}

/** Return the address of the first page of a collection. @param {string} collection */
export function home(collection) {
  return `#/${SIGN}${encodeURIComponent(collection)}/`;
}

/** Return the collection that the first segment of an address names; null if it names none. @param {string} [segment] */
export function namedBy(segment) {
  return segment?.startsWith(SIGN) ? segment.slice(SIGN.length) : null;
}
