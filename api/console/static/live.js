// Live data: server-sent events over fetch, which can send a key as EventSource cannot; polling while no stream can be had.
import { useEffect, useRef, useState } from "preact/hooks";
import { send } from "./service.js";

const FIRST_EVENT_MS = 5000;
const POLL_MS = 2000;
const LONGEST_PAUSE_MS = 15000;
const FINAL = new Set([400, 401, 403, 404]);

/** Parse a stream of server-sent events; `onEvent(name, data)` gets each of them, its data as JSON. */
async function readEvents(body, onEvent) {
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
  }
}

const isVisible = () => document.visibilityState === "visible";

/** Wait for `ms`, or until the tab is seen again, or `signal` aborts. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const waiting = new AbortController();
    const end = () => (clearTimeout(timer), waiting.abort(), resolve());
    const timer = setTimeout(end, ms);
    document.addEventListener("visibilitychange", () => isVisible() && end(), { signal: waiting.signal });
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
    try {
      await source.poll(signal);
      onState({ name: "polling" });
      failures = 0;
    } catch (problem) {
      if (signal.aborted) return;
      onState({ name: FINAL.has(problem.status) ? "failed" : "lost", problem });
      if (FINAL.has(problem.status)) return;
      failures += 1;
    }
    if (source.isEnded?.()) return onState({ name: "ended" });
    await pause(Math.min(POLL_MS * 2 ** Math.max(0, failures - 1), LONGEST_PAUSE_MS), signal);
  }
}

/** Read one stream to its end; whether it had any event. */
async function stream(source, onState, signal) {
  const connection = new AbortController();
  const end = () => connection.abort();
  const hide = () => isVisible() || end();
  signal.addEventListener("abort", end, { once: true });
  document.addEventListener("visibilitychange", hide);
  const timer = setTimeout(end, FIRST_EVENT_MS); // a proxy may keep events back
  let hadEvent = false;
  try {
    await source.begin?.(connection.signal);
    const answer = await send(source.events, { headers: { Accept: "text/event-stream" }, signal: connection.signal });
    await readEvents(answer.body, (name, data) => {
      clearTimeout(timer);
      hadEvent = true;
      onState({ name: "live" });
      source.onEvent(name, data);
    });
  } catch {
    // the poll that follows says what is wrong
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", hide);
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
      events: source.events,
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
