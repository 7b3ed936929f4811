// Try: classify an image, or several as a batch.
import { useEffect, useRef, useState } from "preact/hooks";
import { Announcement, Heading, Picture, ProblemNote, Result, Status, Waterfall, attemptOf, go, html, labelOf, page, percent, placeOf, shortDigest } from "./parts.js";
import { SETTINGS, ask, keepSent, mayRun, Problem, send, serverTimings, useLive } from "./service.js";
import { Snippets } from "./snippets.js";

const SAMPLES = { cat: "chelsea.jpg", coffee: "coffee.jpg", rocket: "rocket.webp", "digit 7": "digit_7.png" };
const ACCEPTED = "image/png,image/jpeg,image/webp,.npy";

/** Pictures of a drop or a paste. */
const filesOf = (transfer) => [...(transfer?.files || [])];

function form(files, model) {
  const data = new FormData();
  for (const file of files) data.append("image", file, file.name);
  if (model) data.append("model", model);
  data.append("top_k", "5");
  data.append("prediction", "false");
  return data;
}

async function sendBatch(files, model, signal) {
  if (files.length > SETTINGS.max_batch_items) {
    const limit = `at most ${SETTINGS.max_batch_items} images at once (batch.max_items)`;
    throw new Problem(400, { title: "Too many images", detail: `These are ${files.length} images`, field: "image", expected: limit });
  }
  const data = form(files, model);
  data.append("metadata", JSON.stringify(files.map((file) => ({ request_id: file.name.slice(0, 256) }))));
  const answer = await send("inference/batch", { method: "POST", body: data, headers: { Prefer: "respond-async" }, signal });
  const { batch_id: id } = await answer.json();
  keepSent(id, files, model);
  go(`batches/${id}`);
}

/** Classify one image; a task that takes more than a second is followed by its id. */
async function classify(file, model, signal, onTask) {
  const answer = await send("inference", { method: "POST", body: form([file], model), headers: { Prefer: "wait=1" }, signal });
  const document = await answer.json();
  if (answer.status === 202) return onTask(document);
  const timings = serverTimings(answer);
  onTask({ ...document, result: document.response, status: "succeeded", timings });
  const task = await ask(`tasks/${document.task_id}`, { signal }); // what the answer does not have: the size of its batch
  return onTask({ ...task, timings: { ...task.timings, total_ms: timings.total_ms } });
}

function Outcome({ task, threshold }) {
  return html`<section class="outcome" aria-label="Result">
    <${Result} result=${task.result} threshold=${threshold} />
    <h2>Where the time went</h2>
    <${Waterfall} timings=${task.timings} />
    <p class="quiet facts">
      <span>${task.model.name} ${task.model.version}</span>
      <span title=${task.model.digest}>${shortDigest(task.model.digest)}</span>
      <span>${task.batch_size ? `in a batch of ${task.batch_size}` : html`<span aria-hidden="true">…</span>`}</span>
      <a href=${page(`tasks/${task.task_id}`)}>All about this task</a>
    </p>
  </section>`;
}

/** A task that takes longer than a second: its place in the queue, live. */
function Waiting({ task, onTask, onProblem }) {
  const latest = useRef(task);
  const update = (next) => onTask((latest.current = next));
  useLive(task.task_id, {
    events: `tasks/${task.task_id}/events`,
    onEvent: (_, next) => update(next),
    poll: async (signal) => update(await ask(`tasks/${task.task_id}`, { signal })),
    isEnded: () => latest.current.finished_at !== null,
  });
  const cancel = () => ask(`tasks/${task.task_id}`, { method: "DELETE" }).then(update, onProblem);
  const place = task.queue ? placeOf(task.queue) : attemptOf(task).slice(2);
  return html`<section class="outcome" aria-label="Result">
    <p class="row"><${Status} name=${task.status} /><span class="quiet">${place}</span></p>
    <progress aria-label="Waiting for the result"></progress>
    <p class="row"><button type="button" onClick=${cancel}>Cancel</button><a href=${page(`tasks/${task.task_id}`)}>All about this task</a></p>
  </section>`;
}

function Answer({ task, threshold, onTask, onProblem }) {
  if (task.result) return html`<${Outcome} task=${task} threshold=${threshold} />`;
  if (!task.finished_at) return html`<${Waiting} key=${task.task_id} task=${task} onTask=${onTask} onProblem=${onProblem} />`;
  if (task.error) return html`<${ProblemNote} problem=${{ document: task.error }} />`;
  return html`<section class="outcome"><p class="row"><${Status} name=${task.status} /></p></section>`;
}

/** The threshold of a model; null if it has none or is not known yet. */
function useThreshold(result, model) {
  const [threshold, setThreshold] = useState(null);
  const isWanted = result?.confident !== undefined;
  useEffect(() => {
    setThreshold(null);
    if (isWanted) ask(`models/${encodeURIComponent(model)}`).then((found) => setThreshold(found.threshold), () => {});
  }, [isWanted, model]);
  return threshold;
}

function useModels() {
  const [models, setModels] = useState({ list: null, problem: null });
  useEffect(() => {
    ask("models").then(({ models: list }) => setModels({ list, problem: null }), (problem) => setModels({ list: [], problem }));
  }, []);
  return models;
}

/** A place to drop, paste, choose or photograph images. */
function Drop({ onFiles, file, isBusy }) {
  const [isOver, setOver] = useState(false);
  const chooser = useRef(null);
  const camera = useRef(null);
  useEffect(() => {
    const paste = (event) => filesOf(event.clipboardData).length && onFiles(filesOf(event.clipboardData));
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, [onFiles]);
  const over = (event) => (event.preventDefault(), setOver(event.type === "dragover"));
  const drop = (event) => (over(event), filesOf(event.dataTransfer).length && onFiles(filesOf(event.dataTransfer)));
  const choose = (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // the same file may be chosen again
    if (files.length) onFiles(files);
  };
  return html`<div class=${`drop ${isOver ? "over" : ""}`} aria-busy=${isBusy} onDragOver=${over} onDragLeave=${over} onDrop=${drop}>
    ${file ? html`<${Picture} file=${file} alt=${`The image that was sent: ${file.name}`} />` : html`<p class="invitation">Drop images here, or paste one</p>`}
    <p class="row">
      <button type="button" class="main" onClick=${() => chooser.current.click()}>Choose images</button>
      <button type="button" class="touch" onClick=${() => camera.current.click()}>Camera</button>
    </p>
    <input ref=${chooser} type="file" accept=${ACCEPTED} multiple hidden aria-label="Images" onChange=${choose} />
    <input ref=${camera} type="file" accept="image/*" capture="environment" hidden aria-label="Photograph" onChange=${choose} />
  </div>`;
}

function ModelPicker({ models, model, onModel }) {
  const chosen = models?.find((one) => one.name === model);
  return html`<div class="field">
    <label for="model">Model</label>
    <select id="model" value=${model} onChange=${(event) => onModel(event.target.value)} disabled=${!models?.length}>
      ${(models || []).map((one) => html`<option key=${one.name} value=${one.name}>${one.name}${one.default ? " (default)" : ""}</option>`)}
    </select>
    <p class="quiet" id="about-model">${chosen ? chosen.description : " "}</p>
    ${chosen && !chosen.warm_workers && html`<p class="note warn">No worker has this model loaded, so an image would wait. <a href=${page("queue")}>Queue</a> says more.</p>`}
  </div>`;
}

function announcementOf(task, problem, isBusy) {
  if (problem) return problem.document.title;
  if (isBusy && !task) return "Sent";
  if (task?.result) return `${labelOf({ class: task.result.class, label: task.result.label })}, ${percent(task.result.confidence_level)}`;
  return task ? `The task is ${task.status}` : "";
}

/** The page of a key that may only read. */
function NothingToTry() {
  return html`<section class="empty"><p>Your key may only read, so it cannot classify images.</p>
    <p><a href=${page("tasks")}>Tasks</a> and <a href=${page("queue")}>Queue</a> show what others do.</p></section>`;
}

export default function TryPage({ query }) {
  return html`<${Heading} title="Try" />${mayRun() ? html`<${Try} query=${query} />` : html`<${NothingToTry} />`}`;
}

function Try({ query }) {
  const { list: models, problem: modelsProblem } = useModels();
  const [model, setModel] = useState(new URLSearchParams(query).get("model") || "");
  const [files, setFiles] = useState([]);
  const [{ task, problem, isBusy }, setState] = useState({});
  const sending = useRef(null);
  const chosen = model || models?.find((one) => one.default)?.name || "";
  const threshold = useThreshold(task?.result, task?.model?.name);
  const answer = useRef(null);
  const hasAnswer = Boolean(task || problem);
  useEffect(() => {
    if (hasAnswer && answer.current.getBoundingClientRect().top > innerHeight / 2) answer.current.scrollIntoView(); // in one column it is below the image
  }, [hasAnswer]);

  const classifyFiles = async (given, name = chosen) => {
    sending.current?.abort();
    const { signal } = (sending.current = new AbortController());
    setFiles(given);
    setState({ isBusy: true });
    try {
      if (given.length > 1) return await sendBatch(given, name, signal);
      await classify(given[0], name, signal, (next) => signal.aborted || setState({ task: next }));
    } catch (error) {
      if (!(error instanceof Problem)) {
        if (error.name !== "AbortError") throw error;
      } else if (!signal.aborted) setState({ problem: error });
    }
    return undefined;
  };
  const trySample = async (name) => {
    const answer = await fetch(new URL(name, import.meta.url));
    await classifyFiles([new File([await answer.blob()], name, { type: answer.headers.get("Content-Type") })]);
  };
  const changeModel = (name) => {
    setModel(name);
    go(`?model=${encodeURIComponent(name)}`, { replace: true });
    if (files.length === 1) classifyFiles(files, name);
  };

  return html`
    <${Announcement} text=${announcementOf(task, problem, isBusy)} />
    <div class="columns try">
      <div>
        <${ModelPicker} models=${models} model=${chosen} onModel=${changeModel} />
        <${Drop} onFiles=${classifyFiles} file=${files.length === 1 ? files[0] : null} isBusy=${Boolean(isBusy)} />
        <p class="samples">or a sample: ${Object.entries(SAMPLES).map(
          ([name, file]) => html`<button key=${file} type="button" class="link" onClick=${() => trySample(file)}>${name}</button>`,
        )}</p>
        <p class="quiet">Several images are sent as one batch.</p>
      </div>
      <div ref=${answer}>
        <${ProblemNote} problem=${problem || modelsProblem} />
        ${isBusy && html`<section class="outcome"><p class="quiet">${files.length > 1 ? `Sending ${files.length} images …` : "Sent …"}</p><progress aria-label="Sending"></progress></section>`}
        ${task && html`<${Answer} task=${task} threshold=${threshold} onTask=${(next) => setState({ task: next })} onProblem=${(error) => setState({ problem: error })} />`}
        ${!task && !problem && !isBusy && html`<section class="empty"><p>The result will be here: the most likely classes, and where the time went.</p><p>Begin with <button type="button" class="link" onClick=${() => trySample(SAMPLES.cat)}>a photo of a cat</button>.</p></section>`}
      </div>
    </div>
    <${Snippets} names=${files.map((file) => file.name)} model=${chosen} />
  `;
}
