// Components and formats that several pages share.
import { h } from "preact";
import { useEffect, useState } from "preact/hooks";
import htm from "htm";
import { GIVEN_UP, ROOT, hasKey, mayAdminister, send } from "./service.js";

export const html = htm.bind(h);

const UI = new URL("ui/", ROOT).pathname;
/** Path of a page of the console. */
export const page = (path) => UI + path;
/** Go to a page of the console without loading it. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", page(path));
  dispatchEvent(new Event("navigate-console"));
}

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const HUNDREDTH = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const TENTH = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const count = (number) => (number == null ? "–" : NUMBER.format(number));
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;
export const tenth = (number) => TENTH.format(number);
export const percent = (share) => (share == null ? "–" : `${TENTH.format(share * 100)} %`);
export const rate = (perSecond) => (perSecond == null ? "–" : `${(perSecond && perSecond < 100 ? TENTH : NUMBER).format(perSecond)} /s`);
export function milliseconds(ms) {
  if (ms == null) return "–";
  if (ms >= 10000) return seconds(ms / 1000);
  return `${(ms < 1 ? HUNDREDTH : ms < 100 ? TENTH : NUMBER).format(ms)} ms`;
}
export function seconds(s) {
  if (s < 100) return `${TENTH.format(s)} s`;
  return s < 7200 ? `${NUMBER.format(s / 60)} min` : `${NUMBER.format(s / 3600)} h`;
}
export const shortDigest = (digest) => (digest || "").replace("sha256:", "").slice(0, 12);
export const labelOf = (entry) => entry.label ?? `class ${entry.class}`;
/** Name of a task in a list: the request id if a client sent one, else the end of the task's id, whose last 6 digits all tasks share. */
export const nameOf = (task) => (task.request_id === task.task_id || (task.replay_of && TASK_ID.test(task.request_id)) ? `…${task.task_id.slice(-12)}` : task.request_id);
/** Milliseconds from the acceptance of a task to its end. */
export const duration = (task) => (task.finished_at ? new Date(task.finished_at) - new Date(task.created_at) : null);
/** Place of a waiting task in its queue, in words. */
export const placeOf = ({ position }) => (position ? `${many(position, "image")} before it` : "next in line");
/** Which attempt of a task runs, in words, unless it is the first. */
export const attemptOf = ({ attempts }) => (attempts > 1 ? `, attempt ${attempts}` : "");
export const OPEN = new Set(["queued", "running"]);

export function Time({ at }) {
  if (!at) return "–";
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return html`<time datetime=${at} title=${at}>${isToday ? "" : `${DAY.format(date)}, `}${CLOCK.format(date)}</time>`;
}

const TASK_ID = /^[0-9a-f]{32}$/;

const SHAPES = {
  queued: html`<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2" />`,
  running: html`<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2" /><path d="M8 3a5 5 0 0 1 0 10z" />`,
  succeeded: html`<circle cx="8" cy="8" r="6" />`,
  failed: html`<path d="M8 1 15 14H1z" />`,
  expired: html`<path d="M3 2h10L8 8l5 6H3l5-6z" />`,
  canceled: html`<path d="M3 7h10v2H3z" />`,
};

/** Statuses of other things than tasks, by the one that looks the same. */
const KINDS = { delivered: "succeeded", ok: "succeeded", ready: "succeeded", pending: "queued", loading: "running", refused: "failed", given_up: "failed" };

/** The status of something, as text and as a shape. */
export function Status({ name }) {
  const kind = SHAPES[name] ? name : KINDS[name] || "canceled";
  return html`<span class="status ${kind}"><svg viewBox="0 0 16 16" aria-hidden="true">${SHAPES[kind]}</svg>${name.replace("_", " ")}</span>`;
}

const STATES = {
  connecting: "Connecting …",
  live: "Live",
  polling: "Updated every 2 s",
  lost: "Connection lost. Trying again …",
  busy: "The service refuses at the moment. Trying again …",
  failed: "", // the problem says why
  ended: "",
};

/** State of the connection of a live page. */
export function Connection({ state }) {
  return html`<span class="connection ${state.name}" role="status">${STATES[state.name]}</span>`;
}

/** A problem in sentences: what is wrong, in which field, and what would be right. */
export function ProblemNote({ problem }) {
  if (!problem) return null;
  const { code, title, detail, field, expected, task_id: task, retry_after_s: wait, workers = {} } = problem.document || { title: problem.message };
  return html`<div class="note bad" role="alert">
    <strong>${title}</strong>
    ${detail && detail !== title && html`<p>${sentence(detail)}</p>`}
    ${code === GIVEN_UP && html`<p>The image is kept as a ${mayAdminister() ? html`<a href=${page("dead-letters")}>dead letter</a>` : "dead letter"} until it is replayed or discarded.</p>`}
    <dl>
      ${field && html`<div><dt>Field</dt><dd><code>${field}</code></dd></div>`}
      ${expected && html`<div><dt>What would be right</dt><dd>${expected}</dd></div>`}
      ${wait && html`<div><dt>Try again in</dt><dd>${seconds(wait)}</dd></div>`}
      ${Object.entries(workers).map(([worker, said]) => html`<div key=${worker}><dt>${worker}</dt><dd>${said}</dd></div>`)}
      ${task && !location.pathname.endsWith(task) && html`<div><dt>Task</dt><dd><a href=${page(`tasks/${task}`)}>${task}</a></dd></div>`}
      ${problem.requestId && html`<div><dt>Request id, for the log</dt><dd><code>${problem.requestId}</code></dd></div>`}
    </dl>
  </div>`;
}

export const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

/** What went wrong with some of many, each reason once. */
export const notDone = (problems) => [...new Set(problems.map(({ message }) => `Not done: ${message.replace(/\.$/, "")}.`))];

/** Whether the visitor means it: nothing brings an erased task back. */
export const askToErase = (number) => confirm(`Erase ${many(number, "task")} for good? The record, the image and the result are deleted.`);

const ERASING = { pending: "will follow", cannot: "cannot delete it" };
/** What erasures leave to do or to know, each sentence once. */
export const leftOf = (erasures) => [
  ...new Set(erasures.flatMap(({ stores }) => Object.entries(stores).filter(([, state]) => ERASING[state]).map(([store, state]) => sentence(`${store} ${ERASING[state]}`)))),
];

/** A table; each column has a title and its classes, and the first cell of each row is its heading. */
export function Table({ caption, columns, rows }) {
  return html`<table>
    ${caption && html`<caption>${caption}</caption>`}
    <thead><tr>${columns.map(([title, kind]) => html`<th key=${title} scope="col" class=${kind}>${title}</th>`)}</tr></thead>
    <tbody>${rows.map(
      ([heading, ...cells], at) => html`<tr key=${at}><th scope="row">${heading}</th>${cells.map((cell, column) => html`<td key=${column} class=${columns[column + 1][1]}>${cell}</td>`)}</tr>`,
    )}</tbody>
  </table>`;
}

/** The most likely classes as bars; `threshold` is marked on each of them. */
export function Bars({ entries, threshold }) {
  return html`<table class="bars" aria-label="Most likely classes">
    <tbody>${entries.map(
      (entry, index) => html`<tr key=${entry.class} class=${index ? "" : "first"}>
        <th scope="row">${labelOf(entry)}</th>
        <td class="bar" aria-hidden="true"><i style=${{ width: `${entry.confidence * 100}%` }}></i>
          ${threshold != null && html`<b style=${{ left: `${threshold * 100}%` }}></b>`}</td>
        <td class="number">${percent(entry.confidence)}</td>
      </tr>`,
    )}</tbody>
  </table>`;
}

/** A result: the most likely classes, and what else the model gives. */
export function Result({ result, threshold }) {
  const entries = result.top || result.labels || [];
  const first = { class: result.class, label: result.label, confidence: result.confidence_level };
  const isMany = Array.isArray(result.labels);
  const title = isMany ? result.labels.map(labelOf).join(", ") || "No label" : labelOf(first);
  return html`
    <p class="answer"><strong>${title}</strong>${!isMany && html` <span>${percent(result.confidence_level)}</span>`}</p>
    ${result.confident === false && html`<p class="quiet">Below the model's threshold${threshold == null ? "" : ` of ${percent(threshold)}`}: not confident.</p>`}
    <${Bars} entries=${entries.length ? entries : [first]} threshold=${threshold} />
    ${result.custom !== undefined && html`<pre class="custom" tabindex="0" aria-label="What the model's own code returned">${JSON.stringify(result.custom, null, 2)}</pre>`}
  `;
}

const STEPS = {
  store_ms: "store",
  queue_ms: "queue",
  fetch_ms: "fetch",
  decode_ms: "decode",
  batch_wait_ms: "wait for batch",
  predict_ms: "predict",
  commit_ms: "commit",
};

/** Where the time of a task went, as a table with a bar for each step. */
export function Waterfall({ timings }) {
  const steps = Object.keys(STEPS).filter((name) => timings[name] != null);
  const total = steps.reduce((sum, name) => sum + timings[name], 0) || 1;
  let before = 0;
  const rows = steps.map((name) => {
    const style = { marginLeft: `${(before / total) * 100}%`, width: `${(timings[name] / total) * 100}%` };
    before += timings[name];
    return html`<tr key=${name} class=${name}>
      <th scope="row">${STEPS[name]}</th>
      <td class="bar" aria-hidden="true"><i style=${style}></i></td>
      <td class="number">${milliseconds(timings[name])}</td>
    </tr>`;
  });
  return html`<table class="waterfall" aria-label="Where the time went">
    <tbody>${rows}</tbody>
    <tfoot><tr><th scope="row">${timings.total_ms == null ? "sum" : "whole request"}</th><td></td>
      <td class="number">${milliseconds(timings.total_ms ?? total)}</td></tr></tfoot>
  </table>`;
}

/** The image of a task while it is kept, or a file that this tab has. */
export function Picture({ taskId, file, alt }) {
  const [source, setSource] = useState(null);
  const [isMissing, setMissing] = useState(false);
  useEffect(() => {
    setMissing(false);
    let url = null;
    const show = (blob) => setSource((url = URL.createObjectURL(blob)));
    if (file) show(file);
    else if (!hasKey()) setSource(`${ROOT}tasks/${taskId}/image`);
    else
      send(`tasks/${taskId}/image`)
        .then((answer) => answer.blob())
        .then(show, () => setMissing(true));
    return () => url && URL.revokeObjectURL(url);
  }, [taskId, file]);
  if (isMissing || !source) return html`<span class="picture none">${isMissing ? "No picture" : ""}</span>`;
  return html`<img class="picture" src=${source} alt=${alt} loading="lazy" decoding="async" onError=${() => setMissing(true)} />`;
}

/** A button that copies a text. */
export function Copy({ text, what }) {
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    if (!isDone) return undefined;
    const timer = setTimeout(() => setDone(false), 2000);
    return () => clearTimeout(timer);
  }, [isDone]);
  const copy = async () => {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyBySelection(text); // pages over plain HTTP have no clipboard
    setDone(true);
  };
  return html`<button type="button" class="small" onClick=${copy} aria-label=${`Copy ${what}`}>${isDone ? "Copied" : "Copy"}</button>`;
}

function copyBySelection(text) {
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Announce a text to screen readers, without a place on the page. */
export function Announcement({ text }) {
  return html`<p class="hidden" role="status" aria-live="polite">${text}</p>`;
}

/** The heading of a page, which is the document's title too. */
export function Heading({ title, children }) {
  useEffect(() => {
    document.title = `${title} · Image inference`;
  }, [title]);
  return html`<header class="heading"><h1>${title}</h1>${children}</header>`;
}

/** Offer a text as a file. */
export function saveFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
