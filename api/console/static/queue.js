// Queue: what waits, who works, where results go, and what needs a look.
import { useEffect, useRef, useState } from "preact/hooks";
import { CLOCK, Connection, Heading, ProblemNote, Status, Table, count, html, many, milliseconds, page, rate, seconds, sentence, tenth } from "./parts.js";
import { ask, mayAdminister, useLive } from "./service.js";

const KEPT_MS = 15 * 60 * 1000;
const KEPT_MINUTES = 15;
const HEIGHT_PX = 180;
const SHORTEST_S = 120;
/** Dashes of the lines, and how the legend shows them. */
const DASHES = [[[], "solid"], [[6, 4], "dashed"], [[2, 3], "dotted"], [[10, 4, 2, 4], "double"]];

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

function chartOptions(names, width, hasPoints) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const dashOf = (index) => DASHES[index % DASHES.length];
  const series = names.map((label, index) => ({
    label,
    stroke: colour("--accent"),
    width: 2,
    dash: dashOf(index)[0],
    points: { show: hasPoints, size: 6 + 3 * (index % DASHES.length), fill: colour(index % 2 ? "--ground" : "--accent") },
    value: (_, value) => (value == null ? "–" : Number(value.toFixed(1))),
  }));
  return {
    width,
    height: HEIGHT_PX,
    padding: [null, 32, null, null],
    cursor: { y: false },
    legend: { markers: { dash: (_, index) => dashOf(index - 1)[1] } },
    scales: { x: { range: lastMinutes }, y: { range: (_, low, high) => [0, Math.max(5, high * 1.1)] } },
    axes: [{ ...axis, space: 90, values: (_, ticks) => ticks.map((at) => CLOCK.format(at * 1000)) }, { ...axis, size: 52 }],
    series: [{ value: (_, at) => (at ? CLOCK.format(at * 1000) : "–") }, ...series],
  };
}

function Figure({ title, about, children }) {
  return html`<figure><figcaption>${title} <span class="quiet">${about}</span></figcaption>${children}</figure>`;
}

/** A line for each name. data: times in seconds since the epoch, then the values of each name, null where there is none. */
function Chart({ title, about, names, data, hasPoints = false }) {
  const place = useRef(null);
  const chart = useRef(null);
  const key = names.join();
  useEffect(() => {
    let isOpen = true;
    const element = place.current;
    const draw = async () => {
      const Plot = await loadChart();
      if (!isOpen) return;
      chart.current?.destroy();
      chart.current = new Plot(chartOptions(names, element.clientWidth, hasPoints), data, element);
    };
    draw().catch(() => {}); // the table of models has the latest numbers
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
  return html`<${Figure} title=${title} about=${about}><div class="chart" ref=${place} aria-hidden="true"></div></${Figure}>`;
}

/** Waiting images of each model since this page was opened, 15 minutes at most. */
function Waiting({ samples, names }) {
  const data = [samples.map(({ at }) => at / 1000), ...names.map((name) => samples.map(({ waiting }) => waiting[name] ?? null))];
  return html`<${Chart} title="Waiting images" about="since this page was opened, 15 minutes at most" names=${names} data=${data} />`;
}

/** How many images the batches of each model had, by minute. */
function Fill({ models }) {
  const about = { title: "Images in a batch", about: "on average, each of the last 15 minutes" };
  if (!models.some(({ fill }) => fill.length)) return html`<${Figure} ...${about}><p class="chart quiet">No batch ran.</p></${Figure}>`; // as high as a chart
  const now = Math.floor(Date.now() / 60000);
  const minutes = Array.from({ length: KEPT_MINUTES }, (_, at) => KEPT_MINUTES - 1 - at);
  const means = models.map(({ fill }) => {
    const byMinute = new Map(fill.map(({ minutes_ago: ago, images, batches }) => [ago, images / batches]));
    return minutes.map((ago) => byMinute.get(ago) ?? null);
  });
  return html`<${Chart} ...${about} names=${models.map(({ model }) => model)}
    data=${[minutes.map((ago) => (now - ago) * 60), ...means]} hasPoints=${true} />`;
}

function Verdict({ status }) {
  const { problems, warnings, dead_letters: dead } = status;
  const isWell = !problems.length && !warnings.length && !dead;
  return html`<div class="verdict" role="status">
    ${isWell && html`<p class="note good"><strong>All is well.</strong></p>`}
    ${problems.map((text) => html`<p key=${text} class="note bad"><strong>Needs a look:</strong> ${sentence(text)}</p>`)}
    ${warnings.map((text) => html`<p key=${text} class="note warn"><strong>Take care:</strong> ${sentence(text)}</p>`)}
    ${dead > 0 && html`<p class="note warn"><strong>${many(dead, "dead letter")}:</strong> tasks that were given up, or whose result a sink refused. ${mayAdminister() && html`<a href=${page("dead-letters")}>Look at ${dead === 1 ? "it" : "them"}</a>.`}</p>`}
  </div>`;
}

/** Images in a batch, on average. */
function meanOf(fill) {
  const sum = (name) => fill.reduce((total, minute) => total + minute[name], 0);
  return fill.length ? tenth(sum("images") / sum("batches")) : "–";
}

function Models({ models }) {
  const rows = models.map(({ model, queue, fill, workers }) => [
    html`<a href=${page(`tasks?status=queued%2Crunning&model=${encodeURIComponent(model)}`)}>${model}</a>`,
    count(queue.depth),
    queue.depth ? seconds(queue.oldest_age_s) : "–",
    rate(queue.drain_rate_per_s),
    meanOf(fill),
    count(workers),
  ]);
  return html`<${Table} caption="Models" columns=${[["Model"], ["Waiting", "number"], ["Oldest", "number"], ["Rate", "number"], ["In a batch", "number wide"], ["Workers", "number"]]} rows=${rows} />`;
}

/** A model of a worker, and below it the milliseconds of a batch by its size. */
function Loaded({ model }) {
  return html`<tr><th scope="row">${model.name} <span class="quiet">${model.version} ${model.runtime && `by ${model.runtime}`}</span></th><td class="number">${rate(model.images_per_s)}</td></tr>
    <tr><td colspan="2"><dl class="sizes">${Object.entries(model.batch_ms).map(([size, ms]) => html`<div key=${size}><dt>${many(Number(size), "image")}</dt><dd>${milliseconds(ms)}</dd></div>`)}</dl></td></tr>`;
}

function Workers({ workers }) {
  if (!workers.length) return html`<section class="empty"><p>No worker is up. Images wait until one is.</p><p>Start one with <code>celery -A tasks worker</code>.</p></section>`;
  return html`<table class="workers">
    <caption>Workers</caption>
    <thead><tr><th scope="col">Loaded model, and the time of a batch</th><th scope="col" class="number">In batches</th></tr></thead>
    ${workers.map(({ worker, models }) => html`<tbody key=${worker}>
      <tr><th scope="rowgroup" colspan="2">${worker}${models.length ? "" : html` <span class="quiet">loads its models</span>`}</th></tr>
      ${models.map((model) => html`<${Loaded} key=${model.name} model=${model} />`)}
    </tbody>`)}
  </table>`;
}

function Sinks({ sinks }) {
  if (!sinks.length) return html`<p class="quiet">Results go to no sink.</p>`;
  const rows = sinks.map(({ sink, outbox, relays }) => [sink, count(outbox.entries), outbox.entries ? seconds(outbox.oldest_age_s) : "–", count(relays.length)]);
  return html`<${Table} caption="Sinks" columns=${[["Sink"], ["Results that wait", "number"], ["Oldest", "number"], ["Relays", "number"]]} rows=${rows} />`;
}

function Stores({ status }) {
  const rows = Object.entries(status.stores).map(([name, state]) => [name.replaceAll("_", " "), state === "ok" ? html`<${Status} name="ok" />` : html`<${Status} name="failed" />: ${state}`]);
  return html`<${Table} caption="Stores" columns=${[["Store"], ["State"]]} rows=${rows} />`;
}

function Left({ status }) {
  const { dead_letters: dead, rejected_messages: rejected, unstored_images: unstored, webhooks } = status;
  const sentences = [
    dead === 0 && "No dead letters.",
    rejected && `${many(rejected, "queue message")} could not be read.`,
    unstored && `${many(unstored, "image")} not yet in the object store.`,
    webhooks?.waiting && `${many(webhooks.waiting, "event waits", "events wait")} for webhooks.`,
  ].filter(Boolean);
  return sentences.length > 0 && html`<section><h2>Left over</h2><p>${sentences.join(" ")}</p></section>`;
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
  const { models, workers } = status;
  return html`
    <${Heading} title="Queue"><${Connection} state=${state} /></${Heading}>
    ${state.problem ? html`<${ProblemNote} problem=${state.problem} />` : html`<${Verdict} status=${status} />`}
    ${models.length > 0 && html`<${Models} models=${models} />
      <div class="columns"><${Waiting} samples=${samples.current} names=${models.map(({ model }) => model)} /><${Fill} models=${models} /></div>
      <${Workers} workers=${workers} />`}
    <div class="columns"><${Sinks} sinks=${status.sinks} /><${Stores} status=${status} /></div>
    <${Left} status=${status} />
  `;
}
