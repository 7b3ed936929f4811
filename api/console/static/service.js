// Requests to the API, and its events: everything that the console shows comes through here.
import { useEffect, useRef, useState } from "preact/hooks";

/** URL of the API's root, with the path that a proxy puts before it; ends with a slash. */
export const ROOT = new URL("../../../", import.meta.url).href;
export const SETTINGS = JSON.parse(document.body.dataset.settings);
const ACCESS = "access";
/** Code of the error of tasks that become dead letters. */
export const GIVEN_UP = "predictor_died";

/** An answer of the API that is a problem (RFC 9457), or no answer at all (status 0). */
export class Problem extends Error {
  constructor(status, document, requestId = "") {
    super(document.detail || document.title);
    Object.assign(this, { status, document, requestId });
  }
}

/** The key of this tab with its role and owner; without a key the service has none, or asks for one. */
const access = () => JSON.parse(sessionStorage.getItem(ACCESS)) || { role: "admin" };
export const hasKey = () => Boolean(access().key);
export const signedInAs = () => (access().owner ? `${access().owner}, ${access().role}` : "");
export const mayRun = () => access().role !== "read";
export const mayReadAll = () => access().role !== "predict";
export const mayAdminister = () => access().role === "admin";

const bearer = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** Keep a key until the tab is closed. Throws a Problem if the service does not take it. */
export async function signIn(key) {
  const { role = "admin", owner } = await ask("key", { headers: bearer(key) }).catch((problem) => {
    if (problem.status === 404) return {}; // the key is that of a gateway before the service
    throw problem;
  });
  sessionStorage.setItem(ACCESS, JSON.stringify({ key, role, owner }));
}

export const signOut = () => sessionStorage.removeItem(ACCESS);

/** Send a request to a path relative to the root; returns the Response, or throws a Problem. An answer 401 is the event `key-needed`. */
export async function send(path, { headers, ...options } = {}) {
  let answer;
  try {
    answer = await fetch(ROOT + path, { ...options, headers: { ...bearer(access().key), ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "The service does not answer", detail: "The service does not answer. Is it running?" });
  }
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  if (answer.status === 401) dispatchEvent(new Event("key-needed"));
  throw problem;
}

async function problemOf(answer) {
  const title = `The answer was ${answer.status} ${answer.statusText}`.trim();
  const document = await answer.json().catch(() => ({}));
  const wait = Number(answer.headers.get("Retry-After")) || undefined;
  return new Problem(answer.status, { title, retry_after_s: wait, ...document }, answer.headers.get("X-Request-ID") || "");
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
const sent = new Map();

/** Keep the files of a batch that this tab has sent to a model, so that their pictures are shown without asking the service. */
export function keepSent(batchId, files, model) {
  sent.set(batchId, { files, model });
  if (sent.size > KEPT_BATCHES) sent.delete(sent.keys().next().value);
}

export const sentAs = (batchId) => sent.get(batchId) || { files: [] };

/** Run the image of a task again; a task that was given up is no dead letter after that. */
export async function replay({ task_id: id, error }) {
  const isGivenUp = error?.code === GIVEN_UP && mayAdminister();
  const next = isGivenUp && (await ask(`dead-letters/${id}/replay`, { method: "POST" }).catch(unlessUnknown)); // it may have been discarded
  return next || ask(`tasks/${id}/replay`, { method: "POST" });
}

function unlessUnknown(problem) {
  if (problem.status !== 404) throw problem;
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

// Live data: server-sent events over fetch, which can send a key as EventSource cannot; polling while no stream can be had.

const FIRST_EVENT_MS = 5000;
const LONGEST_SILENCE_MS = 45000; // three keep-alives
const POLL_MS = 2000;
const LONGEST_PAUSE_MS = 15000;
const FINAL = new Set([400, 401, 403, 404]);

/** Parse a stream of server-sent events; `onEvent(name, data)` gets each of them, its data as JSON; `onBytes()` hears of each piece. */
async function readEvents(body, onEvent, onBytes) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).map((line) => line.match(/^(event|data): ?(.*)$/)).filter(Boolean);
      const data = lines.filter(([, field]) => field === "data").map(([, , text]) => text).join("\n");
      const name = lines.find(([, field]) => field === "event")?.[2] || "message";
      if (data) onEvent(name, JSON.parse(data));
    }
    onBytes();
  }
}

const isVisible = () => document.visibilityState === "visible";

/** Wait for `ms`, or until the tab is seen again, or the network is back, or `signal` aborts. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const waiting = new AbortController();
    const end = () => (clearTimeout(timer), waiting.abort(), resolve());
    const timer = setTimeout(end, ms);
    document.addEventListener("visibilitychange", () => isVisible() && end(), { signal: waiting.signal });
    addEventListener("online", end, { signal: waiting.signal });
    signal.addEventListener("abort", end, { signal: waiting.signal });
  });
}

/** Follow a subject until `signal` aborts or it has ended. A tab that is not seen holds no connection. */
async function follow(source, onState, signal) {
  let failures = 0;
  while (!signal.aborted) {
    if (!isVisible()) {
      await pause(60000, signal);
      continue;
    }
    if (source.events && (await stream(source, onState, signal))) failures = 0;
    if (signal.aborted) return;
    if (source.isEnded?.()) return onState({ name: "ended" });
    if (!isVisible()) continue;
    let wait = 0;
    try {
      await source.poll(signal);
      onState({ name: "polling" });
      failures = 0;
    } catch (problem) {
      if (signal.aborted) return;
      onState({ name: FINAL.has(problem.status) ? "failed" : problem.status ? "busy" : "lost", problem });
      if (FINAL.has(problem.status)) return;
      failures += 1;
      wait = (problem.document?.retry_after_s || 0) * 1000;
    }
    if (source.isEnded?.()) return onState({ name: "ended" });
    await pause(Math.max(wait, Math.min(POLL_MS * 2 ** Math.max(0, failures - 1), LONGEST_PAUSE_MS)), signal);
  }
}

/** Read one stream to its end; whether it had any event. */
async function stream(source, onState, signal) {
  const connection = new AbortController();
  const end = () => connection.abort();
  const whileOpen = { signal: connection.signal };
  signal.addEventListener("abort", end, whileOpen);
  addEventListener("offline", end, whileOpen);
  document.addEventListener("visibilitychange", () => isVisible() || end(), whileOpen);
  let timer = setTimeout(end, FIRST_EVENT_MS); // a proxy may keep events back
  let hadEvent = false;
  const onBytes = () => {
    if (!hadEvent) return;
    clearTimeout(timer);
    timer = setTimeout(end, LONGEST_SILENCE_MS); // the network went away without a word
  };
  const onEvent = (name, data) => {
    hadEvent = true;
    onState({ name: "live" });
    source.onEvent(name, data);
  };
  try {
    await source.begin?.(connection.signal);
    const answer = await send(source.events, { headers: { Accept: "text/event-stream" }, signal: connection.signal });
    await readEvents(answer.body, onEvent, onBytes);
  } catch {
    // the poll that follows says what is wrong
  } finally {
    clearTimeout(timer);
    end();
  }
  return hadEvent;
}

/**
 * Keep a page up to date; returns the state of its connection.
 *
 * source.events: path of the stream, or none. source.onEvent(name, data).
 * source.begin(signal): reads by GET what the stream does not begin with. source.poll(signal): reads the state now by GET.
 * source.isEnded(): whether nothing will change any more. The connection is made anew when `key` changes.
 */
export function useLive(key, source) {
  const [state, setState] = useState({ name: "connecting" });
  const latest = useRef(source);
  latest.current = source;
  useEffect(() => {
    const ending = new AbortController();
    setState({ name: "connecting" });
    const proxy = {
      get events() {
        return latest.current.events;
      },
      begin: (signal) => latest.current.begin?.(signal),
      onEvent: (...event) => ending.signal.aborted || latest.current.onEvent(...event),
      poll: (signal) => latest.current.poll(signal),
      isEnded: () => latest.current.isEnded?.(),
    };
    const onState = (next) => ending.signal.aborted || setState((now) => (now.name === next.name && !next.problem ? now : next));
    follow(proxy, onState, ending.signal);
    return () => ending.abort();
  }, [key]);
  return state;
}
