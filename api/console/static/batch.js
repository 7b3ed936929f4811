// One batch: its images by status, as they end.
import { useRef, useState } from "preact/hooks";
import { Announcement, Connection, Heading, Picture, ProblemNote, Status, html, labelOf, many, page, percent, saveFile } from "./parts.js";
import { ask, mayRun, sentAs, useLive } from "./service.js";
import { Snippets } from "./snippets.js";

const OPEN = ["queued", "running"];
const COLUMNS = ["index", "status", "task_id", "request_id", "class", "label", "confidence_level", "error"];

/** Counts as they are after the items that have come since the last event with counts. */
const endedOf = (counts) => Object.entries(counts).reduce((sum, [status, number]) => sum + (OPEN.includes(status) ? 0 : number), 0);
const sizeOf = (counts) => Object.values(counts).reduce((sum, number) => sum + number, 0);

function cell(value) {
  const text = value == null ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text; // no formula for a spreadsheet
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv(items) {
  const rows = items.map((item, index) => {
    const { class: number, label, confidence_level: confidence } = item.result || {};
    return [index, item.status, item.task_id, item.request_id, number, label, confidence, item.error?.detail];
  });
  return [COLUMNS, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const jsonLines = (items) => items.map((item, index) => JSON.stringify({ index, ...item }) + "\n").join("");

function Counts({ counts, shown, onShow }) {
  const size = sizeOf(counts);
  const choices = [["", "all", size], ...Object.entries(counts).filter(([, number]) => number).map(([status, number]) => [status, status, number])];
  return html`<div class="choice" role="group" aria-label="Show the images that are">
    ${choices.map(([status, text, number]) => html`<button key=${status} type="button" aria-pressed=${status === shown} onClick=${() => onShow(status)}>${text} ${number}</button>`)}
  </div>`;
}

function Item({ item, index, file }) {
  const name = file?.name || (item.request_id !== item.task_id && item.request_id) || `Image ${index + 1}`;
  const said = item.result ? `${labelOf(item.result)} ${percent(item.result.confidence_level)}` : item.error?.detail || "";
  const title = item.task_id ? html`<a href=${page(`tasks/${item.task_id}`)}>${name}</a>` : name;
  return html`<li>
    ${file || item.task_id ? html`<${Picture} taskId=${item.task_id} file=${file} alt="" />` : html`<span class="picture none"></span>`}
    <p class="name">${title}</p>
    <${Status} name=${item.status} />
    <p class="quiet">${said}</p>
  </li>`;
}

/** The batch as of the last event or answer. */
function useBatch(id) {
  const [batch, setBatch] = useState(null);
  const latest = useRef(null);
  const update = (next) => setBatch((latest.current = next));
  const read = async (signal) => update(await ask(`batches/${id}`, { signal }));
  const onEvent = (name, data) => {
    if (!latest.current?.items) return;
    if (name === "batch") return update({ ...latest.current, ...data });
    const { index, ...item } = data;
    return update({ ...latest.current, items: latest.current.items.map((old, at) => (at === index ? item : old)) });
  };
  const state = useLive(id, { events: `batches/${id}/events`, begin: read, onEvent, poll: read, isEnded: () => latest.current?.status === "ended" });
  return { batch, state, update };
}

export default function Batch({ subject }) {
  const { batch, state, update } = useBatch(subject);
  const [shown, setShown] = useState("");
  const [problem, setProblem] = useState(null);
  if (!batch) return html`<${Heading} title="Batch"><${Connection} state=${state} /></${Heading}><${ProblemNote} problem=${state.problem} />`;
  const { counts, items, status } = batch;
  const ended = endedOf(counts);
  const { files, model } = sentAs(subject);
  const cancel = () => ask(`batches/${subject}`, { method: "DELETE" }).then(update, setProblem);
  const chosen = items.map((item, index) => ({ item, index })).filter(({ item }) => !shown || item.status === shown);
  return html`
    <${Heading} title="Batch"><${Connection} state=${state} /></${Heading}>
    <${Announcement} text=${status === "ended" ? `All ${items.length} images have ended` : ""} />
    <p><progress value=${ended} max=${items.length} aria-label="Images that have ended"></progress></p>
    <p class="answer"><strong>${ended} of ${many(items.length, "image")}</strong> <span class="quiet">${status === "ended" ? "The batch has ended." : "have ended"}</span></p>
    <${ProblemNote} problem=${problem} />
    <div class="row actions">
      <${Counts} counts=${counts} shown=${counts[shown] ? shown : ""} onShow=${setShown} />
      <span class="row">
        ${status !== "ended" && mayRun() && html`<button type="button" onClick=${cancel}>Cancel the rest</button>`}
        <button type="button" onClick=${() => saveFile(`${subject}.jsonl`, "application/jsonl", jsonLines(items))}>JSON Lines</button>
        <button type="button" onClick=${() => saveFile(`${subject}.csv`, "text/csv", csv(items))}>CSV</button>
      </span>
    </div>
    <ul class="grid">${chosen.map(({ item, index }) => html`<${Item} key=${index} item=${item} index=${index} file=${files[index]} />`)}</ul>
    ${files.length > 0 && html`<${Snippets} names=${files.map((file) => file.name)} model=${model} />`}
  `;
}
