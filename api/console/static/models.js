// Models: a card each, with what it takes and what it answers.
import { useEffect, useState } from "preact/hooks";
import { Heading, ProblemNote, Status, Table, count, html, many, milliseconds, page, rate, seconds, shortDigest } from "./parts.js";
import { ask, mayAdminister, mayRun } from "./service.js";

const SHOWN_LABELS = 200;
const PROGRESS_MS = 500;

const pathOf = (name) => `models/${encodeURIComponent(name)}`;
const command = (fields) =>
  ask("inference_service_controller", { method: "POST", body: JSON.stringify(fields), headers: { "Content-Type": "application/json" } });

function Labels({ labels }) {
  const [text, setText] = useState("");
  const numbered = labels.map((label, index) => ({ label, index }));
  const found = numbered.filter(({ label }) => label.toLowerCase().includes(text.toLowerCase()));
  const left = found.length - SHOWN_LABELS;
  return html`
    <div class="field"><label>Search the labels <input type="search" value=${text} onInput=${(event) => setText(event.target.value)} /></label></div>
    <p class="quiet" role="status">${many(found.length, "label")}${left > 0 ? `, the first ${SHOWN_LABELS} of them here` : ""}</p>
    <ol class="labels" tabindex="0" aria-label="Labels">${found.slice(0, SHOWN_LABELS).map(({ label, index }) => html`<li key=${index} value=${index}>${label}</li>`)}</ol>`;
}

function Details({ name }) {
  const [{ model, problem }, setState] = useState({});
  const open = (event) => {
    if (!event.target.open || model) return;
    ask(pathOf(name)).then((found) => setState({ model: found }), (error) => setState({ problem: error }));
  };
  return html`<details onToggle=${open}><summary>Labels and workers</summary>
    <${ProblemNote} problem=${problem} />
    ${model && html`
      ${model.threshold != null && html`<p>Confident from ${count(model.threshold * 100)} %.</p>`}
      ${(model.license || model.source) && html`<p class="quiet">${[model.license, model.source].filter(Boolean).join(" · ")}</p>`}
      ${model.workers.length > 0 && html`<${Table} columns=${[["Worker"], ["Version"], ["One image", "number"]]}
        rows=${model.workers.map((one) => [one.worker, one.version, milliseconds(one.predict_ms)])} />`}
      ${model.labels.length ? html`<${Labels} labels=${model.labels} />` : html`<p>It has no labels: results have the number of the class.</p>`}
    `}
  </details>`;
}

/** Load other files of a model; while the workers do, each of them is shown. */
function LoadWeights({ name, onDone }) {
  const [{ isBusy, problem, workers, model }, setState] = useState({});
  const update = (change) => setState((now) => ({ ...now, ...change }));
  const follow = async (signal) => {
    while (!signal.aborted) {
      const { change } = await ask(pathOf(name)).catch(() => ({}));
      if (change && !signal.aborted) update({ workers: change.workers });
      await new Promise((resolve) => setTimeout(resolve, PROGRESS_MS));
    }
  };
  const submit = async (event) => {
    event.preventDefault();
    const { weights, architecture, place } = Object.fromEntries(new FormData(event.target));
    const files = { weights_url: weights.trim(), ...(architecture.trim() && { architecture_url: architecture.trim() }), local_file: place === "disk" };
    const following = new AbortController();
    setState({ isBusy: true });
    follow(following.signal);
    try {
      const { response } = await command({ command: "load_new_weights", model_id: name, ...files });
      setState({ model: response.model, workers: response.workers });
      onDone();
    } catch (error) {
      setState({ problem: error });
    } finally {
      following.abort();
    }
  };
  const said = isBusy ? "Every worker loads the files, and goes on with the old ones meanwhile." : model ? `All workers run version ${model.version}.` : "";
  return html`<details><summary>Load other weights</summary>
    <form onSubmit=${submit}>
      <div class="field"><label>Weights <input name="weights" required spellcheck="false" placeholder="new.keras" /></label></div>
      <div class="field"><label>Architecture, if it changes <input name="architecture" spellcheck="false" /></label></div>
      <div class="field"><label>These are <select name="place"><option value="disk">paths on the workers' disks</option><option value="bucket">objects of the model bucket</option></select></label></div>
      <p class="row"><button disabled=${isBusy}>Load</button><span class="quiet" role="status">${said}</span></p>
    </form>
    ${workers && html`<${Table} columns=${[["Worker"], ["State"], ["Took", "number"]]}
      rows=${workers.map((one) => [one.worker, html`<${Status} name=${one.status} />`, one.load_s == null ? "–" : seconds(one.load_s)])} />`}
    <${ProblemNote} problem=${problem} />
  </details>`;
}

const RAW = { pixels: "arrays are resized as pictures are", model_ready: "arrays must have this shape" };

function Card({ model, onDefault, onDone, isBusy }) {
  const facts = {
    Input: `${model.input.shape.map((side) => side ?? "any").join(" × ")} ${model.input.dtype}${RAW[model.input.raw] ? `; ${RAW[model.input.raw]}` : ""}`,
    Answers: `${model.label_count ? many(model.label_count, "label") : "class numbers"}${model.task === "multi_label" ? ", several for an image" : ""}`,
    Version: html`${model.version} <code title=${model.digest}>${shortDigest(model.digest)}</code>`,
    "Runs by": model.runtime || "–",
    "Measured rate": rate(model.images_per_s),
    "Warm workers": count(model.warm_workers),
  };
  return html`<article class="card">
    <header class="row"><h2>${model.name}</h2>${model.default ? html`<span class="tag">default</span>` : null}</header>
    <p>${model.description}</p>
    ${!model.warm_workers && html`<p class="note warn">No worker has it loaded. <a href=${page("queue")}>Queue</a> says more.</p>`}
    <dl class="facts">${Object.entries(facts).map(([name, fact]) => html`<div key=${name}><dt>${name}</dt><dd>${fact}</dd></div>`)}</dl>
    <p class="row">${mayRun() && html`<a href=${page(`?model=${encodeURIComponent(model.name)}`)}>Try it</a>`}
      ${mayAdminister() && !model.default && html`<button type="button" disabled=${isBusy} onClick=${() => onDefault(model.name)}>Make it the default</button>`}</p>
    <${Details} key=${model.digest} name=${model.name} />
    ${mayAdminister() && html`<${LoadWeights} name=${model.name} onDone=${onDone} />`}
  </article>`;
}

export default function Models() {
  const [models, setModels] = useState(null);
  const [{ problem, isBusy, said }, setState] = useState({});
  const read = () => ask("models").then((found) => setModels(found.models), (error) => setState({ problem: error }));
  useEffect(() => {
    read();
  }, []);
  const makeDefault = async (name) => {
    setState({ isBusy: true });
    try {
      await command({ command: "load_new_model", model_id: name });
      setState({ said: `Requests without a model's name now get ${name}.` });
    } catch (error) {
      setState({ problem: error });
    }
    await read();
  };
  return html`
    <${Heading} title="Models" />
    <${ProblemNote} problem=${problem} />
    <p class="quiet" role="status">${said || (isBusy ? "Changing the default …" : "")}</p>
    <div class="cards">${(models || []).map((model) => html`<${Card} key=${model.name} model=${model} onDefault=${makeDefault} onDone=${read} isBusy=${isBusy} />`)}</div>
  `;
}
