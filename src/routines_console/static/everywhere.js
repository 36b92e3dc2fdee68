/**
 * What can be done on every page, for the palette.
 */

import { LOCAL_ZONE, showsLocal } from "./clock.js";
import { go } from "./router.js";
import { home } from "./scope.js";
import { collections } from "./session.js";

/**
 * Return what can be done on every page.
 *
 * @param {string} current The collection of the page.
 * @param {{addKey: () => void, turnClock: () => void, signOut: (collection: string | null) => void}} actions
 */
export function everywhere(current, { addKey, turnClock, signOut }) {
  const others = collections().filter((each) => each !== current);
  return [
    ...others.map((each) => ({ text: each, kind: "collection", choose: () => go(home(each)) })),
    { text: "Add the key of another collection", kind: "action", choose: addKey },
    { text: showsLocal() ? "Show times in UTC" : `Show times of ${LOCAL_ZONE}`, kind: "action", choose: turnClock },
    ...others.length ? [{ text: `Sign out of ${current}`, kind: "action", choose: () => signOut(current) }] : [],
    { text: others.length ? "Sign out of all" : "Sign out", kind: "action", choose: () => signOut(null) },
  ];
}
