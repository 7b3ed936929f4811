// One task: a permanent link to all that is known of it.
import { useRef, useState } from "preact/hooks";
import { Announcement, Connection, Copy, Heading, OPEN, Picture, ProblemNote, Result, Status, Table, Time, Waterfall, askToErase, attemptOf, duration, go, html, leftOf, many, milliseconds, page, placeOf, seconds, sentence } from "./parts.js";
import { ROOT, ask, hasKey, mayAdminister, mayRun, replay, useLive, withQuery } from "./service.js";

const link = (path, text) => html`<a href=${page(path)}>${text}</a>`;

function Facts({ task }) {
  const facts = {
    Accepted: html`<${Time} at=${task.created_at} />`,
    Started: html`<${Time} at=${task.started_at} />`,
    Ended: html`<${Time} at=${task.finished_at} />`,
    Deadline: html`<${Time} at=${task.deadline_at} />`,
    "Whole time": milliseconds(duration(task)),
    Attempts: task.attempts,
    "Batch size": task.batch_size || "–",
    Priority: task.priority,
    Model: `${task.model.name} ${task.model.version}`,
  };
  if (task.owner) facts.Owner = link(withQuery("tasks", { owner: task.owner }), task.owner);
  const ids = { Digest: task.model.digest, "Request id": link(`tasks?request_id=${encodeURIComponent(task.request_id)}`, task.request_id), "Task id": task.task_id };
  if (task.batch_id) ids.Batch = link(`batches/${task.batch_id}`, task.batch_id);
  if (task.replay_of) ids["Replay of"] = link(`tasks/${task.replay_of}`, task.replay_of);
  return html`<dl class="facts">
    ${Object.entries(facts).map(([name, fact]) => html`<div key=${name}><dt>${name}</dt><dd>${fact}</dd></div>`)}
    ${Object.entries(ids).map(([name, id]) => html`<div key=${name} class="long"><dt>${name}</dt><dd><code>${id}</code></dd></div>`)}
  </dl>`;
}

function Deliveries({ task }) {
  const { deliveries, result, finished_at: end } = task;
  if (!deliveries.length) return html`<p class="quiet">${end ? (result ? "The result goes to no sink." : "There is no result to deliver.") : "The result is delivered once there is one."}</p>`;
  const isRefused = deliveries.some(({ status }) => status === "refused");
  return html`${isRefused && html`<p class="note warn">A refused result is a ${mayAdminister() ? link("dead-letters", "dead letter") : "dead letter"}: it can be delivered again, or discarded.</p>`}
    <${Table} columns=${[["Sink"], ["Delivery"], ["Reason"]]}
    rows=${deliveries.map(({ sink, status, reason }) => [sink, html`<${Status} name=${status} />`, reason ? sentence(reason) : "–"])} />`;
}

/** What became of the event for the receiver: its state, and the newest attempts. */
function Webhook({ webhook }) {
  const { url, events, status, attempts, last_attempts: newest, next_attempt_at: next } = webhook;
  const rows = newest.map((one) => [html`<${Time} at=${one.at} />`, one.status ?? sentence(one.error || "none"), milliseconds(one.duration_ms)]);
  return html`<section><h2>Webhook</h2>
    <p><code>${url}</code></p>
    <p>${status ? html`<${Status} name=${status} />` : html`<span class="quiet">Told of ${events.join(", ").replaceAll("task.", "")}.</span>`}
      ${next && html` <span class="quiet">Next attempt at <${Time} at=${next} />.</span>`}</p>
    ${rows.length > 0 && html`<${Table} caption=${attempts > rows.length ? `The last ${rows.length} of ${attempts} attempts` : many(attempts, "attempt")}
      columns=${[["At"], ["Answer"], ["Took", "number"]]} rows=${rows} />`}
  </section>`;
}

function Waiting({ task }) {
  const eta = task.queue?.eta_s;
  const place = task.queue ? `In the queue: ${placeOf(task.queue)}${eta == null ? "" : `, about ${seconds(eta)}`}.` : `A worker has it${attemptOf(task)}.`;
  return html`<p class="quiet">${place}</p><progress aria-label="Waiting for the result"></progress>`;
}

/** What is left to show of a task that was erased. */
function Erased({ erasure }) {
  return html`<${Heading} title="Erased" />
    <p role="status">The task is erased. ${leftOf([erasure]).join(" ")}</p>
    <p><a href=${page("tasks")}>Tasks</a> has the others.</p>`;
}

function Actions({ task, onTask, onErased }) {
  const [{ problem, isBusy }, setState] = useState({});
  const act = async (change, then) => {
    setState({ isBusy: true });
    try {
      then(await change());
      setState({});
    } catch (error) {
      setState({ problem: error });
    }
  };
  const remove = (query) => ask(`tasks/${task.task_id}${query}`, { method: "DELETE" });
  const button = (text, onClick) => html`<button type="button" disabled=${isBusy} onClick=${onClick}>${text}</button>`;
  return html`
    <p class="row">
      ${mayRun() && (OPEN.has(task.status)
        ? button("Cancel", () => act(() => remove(""), onTask))
        : button("Replay", () => act(() => replay(task), (next) => go(`tasks/${next.task_id}`))))}
      ${mayRun() && button("Erase", () => askToErase(1) && act(() => remove("?erase=true"), onErased))}
      ${!hasKey() && html`<a href=${`${ROOT}tasks/${task.task_id}`} target="_blank" rel="noopener">JSON</a>`}
    </p>
    <${ProblemNote} problem=${problem} />`;
}

function Raw({ task }) {
  const text = JSON.stringify(task, null, 2);
  return html`<details><summary>The whole task as JSON</summary><p><${Copy} text=${text} what="JSON" /></p><pre tabindex="0" aria-label="JSON">${text}</pre></details>`;
}

export default function Task({ subject }) {
  const [task, setTask] = useState(null);
  const [erasure, setErasure] = useState(null);
  const latest = useRef(null);
  const update = (next) => setTask((latest.current = next));
  const state = useLive(subject, {
    events: latest.current?.finished_at ? null : `tasks/${subject}/events`, // deliveries follow the end of the stream
    onEvent: (_, next) => update(next),
    poll: async (signal) => {
      const { result, ...next } = await ask(`tasks/${subject}`, { signal });
      const { prediction, ...parts } = result || {}; // the whole vector is in the JSON of the API alone
      update({ ...next, result: result && parts });
    },
    isEnded: () => Boolean(erasure) || Boolean(latest.current?.finished_at) && ![...latest.current.deliveries, latest.current.webhook].some((delivery) => delivery?.status === "pending"),
  });
  if (erasure) return html`<${Erased} erasure=${erasure} />`;
  if (!task) return html`<${Heading} title="Task"><${Connection} state=${state} /></${Heading}><${ProblemNote} problem=${state.problem} />
    ${state.name === "failed" && html`<p><a href=${page("tasks")}>Tasks</a> has those that are kept.</p>`}`;
  return html`
    <${Heading} title="Task"><${Status} name=${task.status} /><${Connection} state=${state} /></${Heading}>
    <${Announcement} text=${`The task is ${task.status}`} />
    <div class="columns">
      <div>
        <${Picture} key=${subject} taskId=${subject} alt="The image of this task" />
        <${Actions} task=${task} onTask=${update} onErased=${setErasure} />
      </div>
      <div>
        ${task.result && html`<${Result} result=${task.result} />`}
        ${task.error && html`<${ProblemNote} problem=${{ document: task.error }} />`}
        ${!task.finished_at && html`<${Waiting} task=${task} />`}
        ${task.timings.queue_ms != null && html`<h2>Where the time went</h2><${Waterfall} timings=${task.timings} />`}
      </div>
    </div>
    <section><h2>Deliveries</h2><${Deliveries} task=${task} /></section>
    ${task.webhook && html`<${Webhook} webhook=${task.webhook} />`}
    <section><h2>Details</h2><${Facts} task=${task} /><${Raw} task=${task} /></section>
  `;
}
