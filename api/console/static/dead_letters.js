// Dead letters: tasks that were given up, and results that a sink refused.
import { useState } from "preact/hooks";
import { Connection, Heading, ProblemNote, Status, Time, html, many, nameOf, notDone, page } from "./parts.js";
import { ask, forEach, mayAdminister, useLive } from "./service.js";

const LIMIT = 100;

/** Why a task is a dead letter, in words. */
function reasonOf(task) {
  const refusals = task.deliveries.filter(({ status }) => status === "refused").map(({ sink, reason }) => `${sink} refused the result${reason ? `: ${reason}` : ""}`);
  return refusals.join("; ") || task.error?.detail || `${many(task.attempts, "attempt")} failed`;
}

function Row({ task, onReplay, onDiscard, isBusy }) {
  const button = (text, onClick) => html`<button type="button" class="small" disabled=${isBusy} aria-label=${`${text} ${nameOf(task)}`} onClick=${onClick}>${text}</button>`;
  return html`<tr>
    <th scope="row"><a href=${page(`tasks/${task.task_id}`)} title=${task.task_id}>${nameOf(task)}</a></th>
    <td class="wide"><${Time} at=${task.created_at} /></td>
    <td class="wide"><${Status} name=${task.status} /></td>
    <td>${reasonOf(task)}</td>
    ${mayAdminister() && html`<td class="number">${button("Replay", () => onReplay([task]))} ${button("Discard", () => onDiscard(task))}</td>`}
  </tr>`;
}

/** What has become of the tasks that were replayed or discarded. */
function Continued({ done, problems }) {
  if (!done.length && !problems.length) return null;
  return html`<div class="note" role="status">
    ${done.map(({ said, task }) => html`<p key=${task.task_id}>${said}: <a href=${page(`tasks/${task.task_id}`)}>${nameOf(task)}</a>.</p>`)}
    ${notDone(problems).map((text) => html`<p key=${text}>${text}</p>`)}
  </div>`;
}

export default function DeadLetters() {
  const [list, setList] = useState(null);
  const [{ done, problems, isBusy }, setState] = useState({ done: [], problems: [] });
  const read = async (signal) => setList(await ask(`dead-letters?limit=${LIMIT}`, { signal }));
  const state = useLive("dead-letters", { poll: read });
  const act = async (tasks, method, path, saidOf) => {
    setState({ done: [], problems: [], isBusy: true });
    const found = [];
    const wrong = await forEach(tasks, async (from) => {
      const task = await ask(`dead-letters/${from.task_id}${path}`, { method });
      found.push({ task, said: saidOf(from, task) });
    });
    setState({ done: found, problems: wrong });
    await read().catch(() => {}); // the connection's state says so
  };
  const replay = (tasks) => act(tasks, "POST", "/replay", (from, task) => (from.task_id === task.task_id ? "The result is delivered again" : "It runs again as a new task"));
  const discard = (task) => confirm(`Discard ${nameOf(task)}? It cannot be replayed after that.`) && act([task], "DELETE", "", () => "Discarded");
  return html`
    <${Heading} title="Dead letters"><${Connection} state=${state} /></${Heading}>
    <p>Tasks that were given up because their process died each time, and results that a sink refused. Replay runs the image again, or delivers the result again; Discard gives it up.</p>
    <${ProblemNote} problem=${state.problem} />
    <${Continued} done=${done} problems=${problems} />
    ${list?.count === 0 && html`<section class="empty"><p>No dead letters.</p><p><a href=${page("queue")}>Queue</a> says how the service is.</p></section>`}
    ${list?.count > 0 && html`
      <p class="row">${mayAdminister() && html`<button type="button" disabled=${isBusy} onClick=${() => replay(list.tasks)}>Replay ${list.tasks.length === 1 ? "it" : `these ${list.tasks.length}`}</button>`}
        <span class="quiet">${list.count > list.tasks.length ? `The oldest ${list.tasks.length} of ${list.count}` : many(list.count, "dead letter")}</span></p>
      <table class="tasks" aria-label="Dead letters, oldest first">
        <thead><tr><th scope="col">Task</th><th scope="col" class="wide">Accepted</th><th scope="col" class="wide">Status</th><th scope="col">Reason</th>${mayAdminister() && html`<th scope="col"><span class="hidden">Action</span></th>`}</tr></thead>
        <tbody>${list.tasks.map((task) => html`<${Row} key=${task.task_id} task=${task} onReplay=${replay} onDiscard=${discard} isBusy=${isBusy} />`)}</tbody>
      </table>`}
  `;
}
