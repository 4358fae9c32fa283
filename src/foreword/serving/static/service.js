/** Calls of the service, and its errors as sentences for people. */

import { askForKey, currentKey } from "./key.js";

const PATIENCE = 60_000; // milliseconds until a call is given up

/** An answer that is an error, or no answer: `message` can be shown as it is; `detail` is the service's own words. */
export class ServiceError extends Error {
  constructor(message, { detail = "", status = 0, parameter = null } = {}) {
    super(message);
    Object.assign(this, { name: "ServiceError", detail, status, parameter });
  }
}

/**
 * The answer of one call, as data. Addresses are relative, so that the page works below a proxy's prefix too.
 * @param {string} path - `domains`, `search`, ...
 * @param {{body?: Object, signal?: AbortSignal}} options - with a body: POST; `signal`: to give up (an AbortError)
 * @throws {ServiceError} no answer, or an error as the answer
 */
export async function call(path, { body, signal } = {}) {
  let key = currentKey();
  for (;;) {
    const answer = await send(path, body, signal, key);
    if (answer.status !== 401) return read(answer);
    key = await askForKey(key);
    if (!key) {
      throw new ServiceError("This service needs an API key, and none was given.", { status: 401 });
    }
  }
}

async function send(path, body, signal, key) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  const late = AbortSignal.timeout(PATIENCE);
  try {
    return await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body ? JSON.stringify(body) : undefined,
      signal: signal ? AbortSignal.any([signal, late]) : late,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    if (late.aborted) throw new ServiceError(`The service has not answered within ${PATIENCE / 1000} seconds.`);
    throw new ServiceError("The service does not answer. Is it running, and is this machine connected to it?");
  }
}

async function read(answer) {
  let data = null;
  let broken = false;
  try {
    data = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    broken = true; // what else answers in a service's place, as a proxy does, says it in HTML
  }
  if (answer.ok && !broken) return data;
  const { status } = answer;
  const told = data?.error;
  throw new ServiceError(answer.ok ? "The service's answer could not be read." : sentence(status), {
    detail: typeof told?.message === "string" ? told.message : "",
    status,
    parameter: told?.param ?? null,
  });
}

function sentence(status) {
  if (status === 403) return "This key does not give access to this.";
  if (status === 404) return "The service did not find this.";
  if (status === 413) return "The request is larger than the service takes.";
  if (status === 429) return "The service is busy. Try again in a moment.";
  if (status === 503) return "The service is not ready: it is starting, stopping or overloaded. Try again in a moment.";
  if (status >= 500) return `Something went wrong in the service (status ${status}).`;
  return `The service did not take the request (status ${status}).`;
}
