/**
 * Ask the service which cadences there are, and which fields each of them takes.
 *
 * @typedef {object} CadenceField
 * @property {boolean} required
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {any} [default] The value of a field that is left out; null if it has none.
 * @property {any[]} [choices] All values that are allowed.
 * @property {string} [format] What a text has to be: cron, timezone or date-time.
 * @property {string} [example] A valid text.
 *
 * @typedef {{type: string, fields: Record<string, CadenceField>}} CadenceType
 */

import { Problem } from "./api.js";

/**
 * Return the cadence types in display order. The service is asked once per session; a failure is not remembered.
 *
 * @param {import("./session.js").Session} session
 * @returns {Promise<CadenceType[]>}
 */
export function cadenceTypes(session) {
  session.cadenceTypes ??= load(session).catch((error) => {
    session.cadenceTypes = null;
    throw explained(error);
  });
  return session.cadenceTypes;
}

async function load({ api, collection }) {
  const types = await api.get(["cadence-types", collection]);
  if (!types.length) throw new Problem(500, { detail: "The list is empty." });
  return types;
}

function explained(error) {
  if (!(error instanceof Problem)) return error;
  const advice = error.status === 404
    ? "This API may be older than the console. Reload the page once every API process has been upgraded."
    : undefined;
  const detail = `A routine needs a cadence, but the service did not say which ones there are. ${error.message}`;
  return new Problem(error.status, { title: "Could not load the cadences", detail }, advice);
}
