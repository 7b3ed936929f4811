// Models: a card each, with what it takes and what it answers.
import { useEffect, useState } from "preact/hooks";
import { Heading, ProblemNote, count, html, many, milliseconds, page, rate, shortDigest } from "./parts.js";
import { ask } from "./service.js";

const SHOWN_LABELS = 200;

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
    ask(`models/${encodeURIComponent(name)}`).then((found) => setState({ model: found }), (error) => setState({ problem: error }));
  };
  return html`<details onToggle=${open}><summary>Labels and workers</summary>
    <${ProblemNote} problem=${problem} />
    ${model && html`
      ${model.threshold != null && html`<p>Confident from ${count(model.threshold * 100)} %.</p>`}
      ${(model.license || model.source) && html`<p class="quiet">${[model.license, model.source].filter(Boolean).join(" · ")}</p>`}
      ${model.workers.length > 0 && html`<table>
        <thead><tr><th scope="col">Worker</th><th scope="col">Version</th><th scope="col" class="number">One image</th></tr></thead>
        <tbody>${model.workers.map((one) => html`<tr key=${one.worker}><th scope="row">${one.worker}</th><td>${one.version}</td><td class="number">${milliseconds(one.predict_ms)}</td></tr>`)}</tbody>
      </table>`}
      ${model.labels.length ? html`<${Labels} labels=${model.labels} />` : html`<p>It has no labels: results have the number of the class.</p>`}
    `}
  </details>`;
}

const RAW = { pixels: "arrays are resized as pictures are", model_ready: "arrays must have this shape" };

function Card({ model, onDefault, isBusy }) {
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
    <p class="row"><a href=${page(`?model=${encodeURIComponent(model.name)}`)}>Try it</a>
      ${!model.default && html`<button type="button" disabled=${isBusy} onClick=${() => onDefault(model.name)}>Make it the default</button>`}</p>
    <${Details} name=${model.name} />
  </article>`;
}

export default function Models() {
  const [models, setModels] = useState(null);
  const [{ problem, isBusy, said }, setState] = useState({});
  const read = () => ask("models").then((found) => setModels(found.models));
  useEffect(() => {
    read().catch((error) => setState({ problem: error }));
  }, []);
  const makeDefault = async (name) => {
    setState({ isBusy: true });
    try {
      const body = JSON.stringify({ command: "load_new_model", model_id: name });
      await ask("inference_service_controller", { method: "POST", body, headers: { "Content-Type": "application/json" } });
      await read();
      setState({ said: `Requests without a model's name now get ${name}.` });
    } catch (error) {
      setState({ problem: error });
    }
  };
  return html`
    <${Heading} title="Models" />
    <${ProblemNote} problem=${problem} />
    <p class="quiet" role="status">${said || (isBusy ? "Changing the default …" : "")}</p>
    <div class="cards">${(models || []).map((model) => html`<${Card} key=${model.name} model=${model} onDefault=${makeDefault} isBusy=${isBusy} />`)}</div>
  `;
}
