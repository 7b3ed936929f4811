// Requests to the API. Everything that the console shows comes through here.

/** URL of the API's root, with the path that a proxy puts before it; ends with a slash. */
export const ROOT = new URL("../../../", import.meta.url).href;
export const SETTINGS = JSON.parse(document.body.dataset.settings);
const KEY = "key";

/** An answer of the API that is a problem (RFC 9457), or no answer at all (status 0). */
export class Problem extends Error {
  constructor(status, document, requestId = "") {
    super(document.detail || document.title);
    Object.assign(this, { status, document, requestId });
  }
}

const keyListeners = new Set();

/** Call `listener` when the API asks for a key, and when it has one again. Returns a function that ends this. */
export function onKeyNeeded(listener) {
  keyListeners.add(listener);
  return () => keyListeners.delete(listener);
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Keep a key until the tab is closed; an empty one is forgotten. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Send a request to a path relative to the root; returns the Response, or throws a Problem. */
export async function send(path, { headers, ...options } = {}) {
  const key = sessionStorage.getItem(KEY);
  const all = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
  let answer;
  try {
    answer = await fetch(ROOT + path, { ...options, headers: all });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "The service does not answer", detail: "The service does not answer. Is it running?" });
  }
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  if (answer.status === 401) keyListeners.forEach((listener) => listener(problem));
  throw problem;
}

async function problemOf(answer) {
  const title = `The answer was ${answer.status} ${answer.statusText}`.trim();
  const document = await answer.json().catch(() => ({}));
  return new Problem(answer.status, { title, ...document }, answer.headers.get("X-Request-ID") || "");
}

/** Send a request whose answer is JSON. */
export async function ask(path, options) {
  return (await send(path, options)).json();
}

/** A path below the root with a query; parameters without a value are left out. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value != null));
  return query.size ? `${path}?${query}` : path;
}

/** Milliseconds by step, from the header Server-Timing. */
export function serverTimings(answer) {
  const entries = (answer.headers.get("Server-Timing") || "").split(",").map((entry) => entry.trim().split(";dur="));
  return Object.fromEntries(entries.filter(([, ms]) => ms).map(([name, ms]) => [`${name}_ms`, Number(ms)]));
}

const KEPT_BATCHES = 5;
const sentFiles = new Map();

/** Keep the files of a batch that this tab has sent, so that their pictures are shown without asking the service. */
export function keepFiles(batchId, files) {
  sentFiles.set(batchId, files);
  if (sentFiles.size > KEPT_BATCHES) sentFiles.delete(sentFiles.keys().next().value);
}

export function filesOfBatch(batchId) {
  return sentFiles.get(batchId) || [];
}

/** Call `action` for each item, four at a time; returns what went wrong, a Problem each. */
export async function forEach(items, action) {
  const left = [...items];
  const problems = [];
  const work = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) {
      await action(item).catch((problem) => problems.push(problem));
    }
  };
  await Promise.all([work(), work(), work(), work()]);
  return problems;
}
