// Tasks: the newest ones, live; filters are in the URL.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Announcement, Connection, Heading, OPEN, ProblemNote, Status, Time, askToErase, duration, go, html, labelOf, leftOf, many, milliseconds, nameOf, notDone, page, percent, placeOf } from "./parts.js";
import { ask, forEach, hasKey, mayReadAll, mayRun, replay, useLive, withQuery } from "./service.js";

const LIMIT = 100;
const STATUSES = ["queued", "running", "succeeded", "failed", "canceled", "expired"];
const PERIODS = { "Last 15 minutes": 15, "Last hour": 60, "Last day": 1440 };

const isWanted = (task, { status, since }) =>
  (!status || status.split(",").includes(task.status)) && (!since || new Date(task.created_at) >= new Date(since));

/** The newest tasks of both lists that the filters want; an entry of `changed` replaces that of the same id. */
function merge(tasks, changed, filters) {
  const known = new Set(tasks.map((task) => task.task_id));
  const byId = new Map([...changed.filter((task) => !known.has(task.task_id)), ...tasks, ...changed].map((task) => [task.task_id, task]));
  const wanted = [...byId.values()].filter((task) => isWanted(task, filters));
  // Those of a batch were accepted in one moment, and stay in the order of the service.
  return wanted.sort((one, other) => (one.created_at === other.created_at ? 0 : one.created_at < other.created_at ? 1 : -1)).slice(0, LIMIT);
}

/** One page of tasks; the first of them is live. */
function useTasks(filters) {
  const [{ tasks, next }, setList] = useState({ tasks: null, next: null });
  const [problem, setProblem] = useState(null);
  const key = JSON.stringify(filters);
  const read = async (signal) => {
    try {
      const found = await ask(withQuery("tasks", { ...filters, limit: LIMIT }), { signal });
      setList({ tasks: found.tasks, next: found.next_cursor });
      setProblem(null);
    } catch (error) {
      if (error.status >= 400 && error.status < 500) setProblem(error);
      throw error;
    }
  };
  useEffect(() => setList({ tasks: null, next: null }), [key]);
  const { status, model, request_id: requestId, owner } = filters;
  const state = useLive(key, {
    events: filters.cursor ? null : withQuery("events", { status, model, request_id: requestId, owner }),
    begin: read,
    onEvent: (_, { tasks: changed, omitted }) =>
      omitted ? read().catch(() => {}) : setList((list) => ({ ...list, tasks: merge(list.tasks || [], changed, filters) })),
    poll: read,
  });
  const apply = (changed) => setList((list) => ({ ...list, tasks: merge(list.tasks, changed, filters) }));
  return { tasks, next, state, problem, apply, read: () => read().catch(() => {}) };
}

/** Names of the models, once they are known. */
function useModels() {
  const [names, setNames] = useState([]);
  useEffect(() => void ask("models").then(({ models }) => setNames(models.map(({ name }) => name).sort()), () => {}), []);
  return names;
}

function Filters({ filters, hasOwners }) {
  const models = useModels();
  const change = (name) => (event) => go(withQuery("tasks", { ...filters, cursor: "", [name]: event.target.value.trim() }));
  const since = (event) => {
    const ago = PERIODS[event.target.value];
    go(withQuery("tasks", { ...filters, cursor: "", since: ago ? new Date(Date.now() - ago * 60000).toISOString().slice(0, 19) + "Z" : "" }));
  };
  const options = (names) => names.map((name) => html`<option key=${name} value=${name}>${name}</option>`);
  const chosen = (known, name) => (name && !known.includes(name) ? [...known, name] : known);
  return html`<form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
    <div class="field"><label for="status">Status</label>
      <select id="status" value=${filters.status} onChange=${change("status")}><option value="">any</option>${options(chosen(STATUSES, filters.status))}</select></div>
    <div class="field"><label for="model">Model</label>
      <select id="model" value=${filters.model} onChange=${change("model")}><option value="">any</option>${options(chosen(models, filters.model))}</select></div>
    <div class="field"><label for="since">Accepted</label>
      <select id="since" value=${filters.since} onChange=${since}><option value="">at any time</option>${filters.since && html`<option value=${filters.since}>since ${filters.since}</option>`}${options(Object.keys(PERIODS))}</select></div>
    <div class="field"><label for="request">Request id</label>
      <input id="request" type="search" autocomplete="off" value=${filters.request_id} onChange=${change("request_id")} /></div>
    ${(hasOwners || filters.owner) && html`<div class="field"><label for="owner">Owner</label>
      <input id="owner" type="search" autocomplete="off" spellcheck="false" value=${filters.owner} onChange=${change("owner")} /></div>`}
  </form>`;
}

function Row({ task, isSelected, onSelect, hasOwners }) {
  const { result, error } = task;
  return html`<tr>
    ${mayRun() && html`<td><input type="checkbox" checked=${isSelected} onChange=${onSelect} aria-label=${`Select ${nameOf(task)}`} /></td>`}
    <th scope="row"><a href=${page(`tasks/${task.task_id}`)} title=${task.task_id}>${nameOf(task)}</a></th>
    <td class="when"><${Time} at=${task.created_at} /></td>
    <td><${Status} name=${task.status} /></td>
    <td class="wide">${result ? html`${labelOf(result)} <span class="quiet">${percent(result.confidence_level)}</span>` : html`<span class="quiet">${error ? error.title : task.queue ? placeOf(task.queue) : ""}</span>`}</td>
    <td class="wide">${task.model.name}</td>
    ${hasOwners && html`<td class="wide">${task.owner ? html`<a href=${page(withQuery("tasks", { owner: task.owner }))}>${task.owner}</a>` : "–"}</td>`}
    <td class="number wide">${milliseconds(duration(task))}</td>
    <td class="number wide">${task.attempts}</td>
  </tr>`;
}

/** Cancel, replay or erase the tasks that are selected. */
function Actions({ selected, apply, read, said, onDone }) {
  const [isBusy, setBusy] = useState(false);
  const open = selected.filter((task) => OPEN.has(task.status));
  const ended = selected.filter((task) => !OPEN.has(task.status));
  const act = async (tasks, change, done, show = apply) => {
    setBusy(true);
    const changed = [];
    const problems = await forEach(tasks, async (task) => changed.push(await change(task)));
    await show(changed);
    const left = show === read ? leftOf(changed) : [];
    const sentences = [changed.length && `${many(changed.length, "task")} ${done}.`, ...left, ...notDone(problems)];
    setBusy(false);
    onDone(sentences.filter(Boolean).join(" "));
  };
  const remove = (query) => ({ task_id: id }) => ask(`tasks/${id}${query}`, { method: "DELETE" });
  const erase = () => askToErase(selected.length) && act(selected, remove("?erase=true"), "erased", read);
  const button = (text, { length }, onClick) => html`<button type="button" disabled=${isBusy || !length} onClick=${onClick}>${text}${length ? ` ${length}` : ""}</button>`;
  return html`<div class="row actions">
    ${button("Cancel", open, () => act(open, remove(""), "canceled"))}
    ${button("Replay", ended, () => act(ended, replay, "started again"))}
    ${button("Erase", selected, erase)}
    <span class="quiet" role="status">${selected.length ? `${many(selected.length, "task")} selected` : said || "Select tasks to cancel, replay or erase them."}</span>
  </div>`;
}

function Table({ tasks, selected, onSelect, hasOwners }) {
  const all = useRef(null);
  useEffect(() => {
    if (all.current) all.current.indeterminate = selected.size > 0 && selected.size < tasks.length;
  });
  const toggle = (id) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    onSelect(next);
  };
  const toggleAll = () => onSelect(new Set(selected.size ? [] : tasks.map((task) => task.task_id)));
  return html`<table class="tasks" aria-label="Tasks, newest first">
    <thead><tr>
      ${mayRun() && html`<td><input ref=${all} type="checkbox" checked=${selected.size === tasks.length} onChange=${toggleAll} aria-label="Select all tasks of this page" /></td>`}
      <th scope="col">Task</th><th scope="col">Accepted</th><th scope="col">Status</th><th scope="col" class="wide">Result</th>
      <th scope="col" class="wide">Model</th>${hasOwners && html`<th scope="col" class="wide">Owner</th>`}<th scope="col" class="number wide">Time</th><th scope="col" class="number wide">Attempts</th>
    </tr></thead>
    <tbody>${tasks.map((task) => html`<${Row} key=${task.task_id} task=${task} isSelected=${selected.has(task.task_id)} onSelect=${() => toggle(task.task_id)} hasOwners=${hasOwners} />`)}</tbody>
  </table>`;
}

function Nothing({ isFiltered }) {
  if (isFiltered) return html`<section class="empty"><p>No task fits these filters.</p><p><a href=${page("tasks")}>Show all tasks</a></p></section>`;
  return html`<section class="empty"><p>No task yet.</p><p><a href=${page("")}>Try an image</a>, and it is listed here at once.</p></section>`;
}

export default function Tasks({ query }) {
  const filters = { status: "", model: "", since: "", request_id: "", owner: "", cursor: "", ...Object.fromEntries(new URLSearchParams(query)) };
  const { tasks, next, state, problem, apply, read } = useTasks(filters);
  const [chosen, setChosen] = useState(new Set());
  const [said, setSaid] = useState(""); // it outlives the tasks, which may all be erased
  const begin = (text = "") => (setChosen(new Set()), setSaid(text));
  useEffect(() => begin(), [query]);
  const selected = new Set((tasks || []).map((task) => task.task_id).filter((id) => chosen.has(id)));
  const { cursor, ...conditions } = filters;
  const hasOwners = mayReadAll() && (hasKey() || Boolean(tasks?.some((task) => task.owner)));
  const form = useMemo(() => html`<${Filters} filters=${filters} hasOwners=${hasOwners} />`, [query, hasOwners]); // an event that comes leaves what is being typed
  return html`
    <${Heading} title="Tasks"><${Connection} state=${state} /></${Heading}>
    ${form}
    <${ProblemNote} problem=${problem || (tasks ? null : state.problem)} />
    <${Announcement} text=${tasks ? many(tasks.length, "task") : ""} />
    ${tasks?.length === 0 && said && html`<p class="note" role="status">${said}</p>`}
    ${tasks?.length === 0 && !problem && html`<${Nothing} isFiltered=${Object.values(filters).some(Boolean)} />`}
    ${tasks?.length > 0 && html`
      ${mayRun() && html`<${Actions} selected=${tasks.filter((task) => selected.has(task.task_id))} apply=${apply} read=${read} said=${said} onDone=${begin} />`}
      <${Table} tasks=${tasks} selected=${selected} onSelect=${setChosen} hasOwners=${hasOwners} />`}
    <p class="row">
      ${cursor && html`<a href=${page(withQuery("tasks", conditions))}>Newest</a>`}
      ${next && html`<a href=${page(withQuery("tasks", { ...conditions, cursor: next }))}>Older</a>`}
    </p>
  `;
}
