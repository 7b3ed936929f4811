// Queue: what waits, who works, where results go, and what needs a look.
import { useEffect, useRef, useState } from "preact/hooks";
import { CLOCK, Connection, Heading, ProblemNote, Status, count, html, many, milliseconds, page, rate, seconds } from "./parts.js";
import { ask, useLive } from "./service.js";

const KEPT_MS = 15 * 60 * 1000;
const HEIGHT_PX = 180;
const SHORTEST_S = 120;

/** Load uPlot, a classic script, once. */
let loading;
function loadChart() {
  loading ??= new Promise((resolve, reject) => {
    const place = (name) => new URL(name, import.meta.url).href;
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: place("uplot.css") }));
    document.head.append(Object.assign(document.createElement("script"), { src: place("uplot.js"), onload: () => resolve(window.uPlot), onerror: reject }));
  });
  return loading;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** From the first sample to the last, and two minutes at least. */
function lastMinutes({ data: [times] }) {
  const last = times.at(-1);
  return [Math.min(times[0], last - SHORTEST_S), last];
}

function chartOptions(names, width) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4]];
  const series = names.map((label, index) => ({ label, stroke: colour("--accent"), width: 2, dash: dashes[index % dashes.length], points: { show: false } }));
  return {
    width,
    height: HEIGHT_PX,
    cursor: { y: false },
    scales: { x: { range: lastMinutes }, y: { range: (_, low, high) => [0, Math.max(5, high * 1.1)] } },
    axes: [{ ...axis, space: 90, values: (_, ticks) => ticks.map((at) => CLOCK.format(at * 1000)) }, { ...axis, size: 44 }],
    series: [{ value: (_, at) => (at ? CLOCK.format(at * 1000) : "–") }, ...series],
  };
}

/** Waiting images of each model since this page was opened, 15 minutes at most. */
function Chart({ samples, names }) {
  const place = useRef(null);
  const chart = useRef(null);
  const key = names.join();
  const data = [samples.map(({ at }) => at / 1000), ...names.map((name) => samples.map(({ waiting }) => waiting[name] ?? null))];
  useEffect(() => {
    let isOpen = true;
    const element = place.current;
    const draw = async () => {
      const Plot = await loadChart();
      if (!isOpen) return;
      chart.current?.destroy();
      chart.current = new Plot(chartOptions(names, element.clientWidth), data, element);
    };
    draw().catch(() => {}); // the table has the same numbers
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const sizes = new ResizeObserver(() => chart.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    scheme.addEventListener("change", draw);
    sizes.observe(element);
    return () => {
      isOpen = false;
      scheme.removeEventListener("change", draw);
      sizes.disconnect();
      chart.current?.destroy();
      chart.current = null;
    };
  }, [key]);
  useEffect(() => chart.current?.setData(data));
  return html`<figure><figcaption>Waiting images <span class="quiet">since this page was opened, 15 minutes at most</span></figcaption>
    <div class="chart" ref=${place} aria-hidden="true"></div></figure>`;
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + ".";

function Verdict({ status }) {
  const { problems, warnings } = status;
  if (!problems.length && !warnings.length) return html`<div class="verdict" role="status"><p class="note good"><strong>All is well.</strong></p></div>`;
  return html`<div class="verdict" role="status">
    ${problems.map((text) => html`<p key=${text} class="note bad"><strong>Needs a look:</strong> ${sentence(text)}</p>`)}
    ${warnings.map((text) => html`<p key=${text} class="note warn"><strong>Take care:</strong> ${sentence(text)}</p>`)}
  </div>`;
}

function Models({ models }) {
  return html`<table>
    <caption>Models</caption>
    <thead><tr><th scope="col">Model</th><th scope="col" class="number">Waiting</th><th scope="col" class="number">Oldest</th><th scope="col" class="number">Rate</th><th scope="col" class="number">Workers</th></tr></thead>
    <tbody>${models.map(
      ({ model, queue, workers }) => html`<tr key=${model}>
        <th scope="row"><a href=${page(`tasks?status=queued%2Crunning&model=${encodeURIComponent(model)}`)}>${model}</a></th>
        <td class="number">${count(queue.depth)}</td><td class="number">${queue.depth ? seconds(queue.oldest_age_s) : "–"}</td>
        <td class="number">${rate(queue.drain_rate_per_s)}</td><td class="number">${count(workers)}</td>
      </tr>`,
    )}</tbody>
  </table>`;
}

function Workers({ workers }) {
  if (!workers.length) return html`<section class="empty"><p>No worker is up. Images wait until one is.</p><p>Start one with <code>celery -A tasks worker</code>.</p></section>`;
  return html`<table>
    <caption>Workers</caption>
    <thead><tr><th scope="col">Worker</th><th scope="col">Loaded model</th><th scope="col" class="wide">Runs by</th><th scope="col" class="number wide">One image</th><th scope="col" class="number">In batches</th></tr></thead>
    <tbody>${workers.flatMap(({ worker, models }) =>
      (models.length ? models : [null]).map(
        (model, index) => html`<tr key=${`${worker} ${model?.name}`}>
          ${index === 0 && html`<th scope="rowgroup" rowspan=${models.length || 1}>${worker}</th>`}
          ${model
            ? html`<td>${model.name} <span class="quiet">${model.version}</span></td><td class="wide">${model.runtime || "–"}</td><td class="number wide">${milliseconds(model.predict_ms)}</td><td class="number">${rate(model.images_per_s)}</td>`
            : html`<td colspan="4" class="quiet">loading</td>`}
        </tr>`,
      ),
    )}</tbody>
  </table>`;
}

function Sinks({ sinks }) {
  if (!sinks.length) return html`<p class="quiet">Results go to no sink.</p>`;
  return html`<table>
    <caption>Sinks</caption>
    <thead><tr><th scope="col">Sink</th><th scope="col" class="number">Results that wait</th><th scope="col" class="number">Oldest</th><th scope="col" class="number">Relays</th></tr></thead>
    <tbody>${sinks.map(
      ({ sink, outbox, relays }) => html`<tr key=${sink}><th scope="row">${sink}</th><td class="number">${count(outbox.entries)}</td>
        <td class="number">${outbox.entries ? seconds(outbox.oldest_age_s) : "–"}</td><td class="number">${count(relays.length)}</td></tr>`,
    )}</tbody>
  </table>`;
}

function Stores({ status }) {
  return html`<table>
    <caption>Stores</caption>
    <thead><tr><th scope="col">Store</th><th scope="col">State</th></tr></thead>
    <tbody>${Object.entries(status.stores).map(
      ([name, state]) => html`<tr key=${name}><th scope="row">${name.replaceAll("_", " ")}</th><td>${state === "ok" ? html`<${Status} name="ok" />` : html`<${Status} name="failed" /> ${state}`}</td></tr>`,
    )}</tbody>
  </table>`;
}

function Left({ status }) {
  if (status.dead_letters === null) return null;
  return html`<section><h2>Left over</h2>
    <p>${status.dead_letters
      ? html`${many(status.dead_letters, "dead letter")}: tasks that were given up, or whose result a sink refused. <a href=${page("dead-letters")}>Look at them</a>.`
      : "No dead letters."}
    ${status.rejected_messages ? ` ${many(status.rejected_messages, "queue message")} could not be read.` : ""}
    ${status.unstored_images ? ` ${many(status.unstored_images, "image")} not yet in the object store.` : ""}</p>
  </section>`;
}

export default function Queue() {
  const [status, setStatus] = useState(null);
  const samples = useRef([]);
  const state = useLive("status", {
    poll: async (signal) => {
      const now = await ask("status", { signal });
      const waiting = Object.fromEntries(now.models.map(({ model, queue }) => [model, queue.depth]));
      samples.current = [...samples.current, { at: Date.now(), waiting }].filter(({ at }) => Date.now() - at < KEPT_MS);
      setStatus(now);
    },
  });
  if (!status) return html`<${Heading} title="Queue"><${Connection} state=${state} /></${Heading}><${ProblemNote} problem=${state.problem} />`;
  return html`
    <${Heading} title="Queue"><${Connection} state=${state} /></${Heading}>
    ${state.problem ? html`<${ProblemNote} problem=${state.problem} />` : html`<${Verdict} status=${status} />`}
    ${status.models.length > 0 && html`<${Models} models=${status.models} /><${Chart} samples=${samples.current} names=${status.models.map(({ model }) => model)} /><${Workers} workers=${status.workers} />`}
    <div class="columns"><${Sinks} sinks=${status.sinks} /><${Stores} status=${status} /></div>
    <${Left} status=${status} />
  `;
}
