// The frame of the console: navigation, the page that fits the URL, the place where a key is typed.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { html, page } from "./parts.js";
import { ROOT, SETTINGS, hasKey, keepKey, onKeyNeeded } from "./service.js";

const NAVIGATION = { "": "Try", tasks: "Tasks", queue: "Queue", models: "Models" };
/** Pages that belong to one of the navigation. */
const PARENTS = { "batches/": "tasks", "dead-letters": "queue" };
const PAGES = {
  "": () => import("./try.js"),
  tasks: () => import("./tasks.js"),
  "dead-letters": () => import("./dead_letters.js"),
  queue: () => import("./queue.js"),
  models: () => import("./models.js"),
  "tasks/": () => import("./task.js"),
  "batches/": () => import("./batch.js"),
};

/** Name of the page at a URL, and the id in it. */
function placeOf(url) {
  const [name, subject] = url.pathname.slice(page("").length).split("/");
  return { name: subject ? `${name}/` : name, subject: decodeURIComponent(subject || ""), query: url.search };
}

function usePlace() {
  const [place, setPlace] = useState(placeOf(location));
  useEffect(() => {
    const look = () => setPlace(placeOf(location));
    addEventListener("popstate", look);
    addEventListener("navigate-console", look);
    document.addEventListener("click", followLink);
  }, []);
  return place;
}

/** Follow a link to a page of the console without loading it. */
function followLink(event) {
  const link = event.target.closest?.("a[href]");
  const isPlain = !event.defaultPrevented && event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (!link.pathname.startsWith(page("")) || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  dispatchEvent(new Event("navigate-console"));
  scrollTo(0, 0);
  document.querySelector("main").focus({ preventScroll: true });
}

function Page({ place }) {
  const [shown, setShown] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    PAGES[place.name]?.().then((module) => isCurrent && setShown({ name: place.name, Component: module.default }));
    return () => (isCurrent = false);
  }, [place.name]);
  if (!PAGES[place.name]) return html`<h1>Nothing is here</h1><p>Go to <a href=${page("")}>Try</a>.</p>`;
  if (shown?.name !== place.name) return null;
  return html`<${shown.Component} key=${place.name + place.subject} subject=${place.subject} query=${place.query} />`;
}

/** A place to type a key, which is shown only when the API asks for one. */
function KeyForm({ onDone }) {
  const submit = (event) => {
    event.preventDefault();
    keepKey(new FormData(event.target).get("key").trim());
    onDone();
  };
  return html`<form class="note" onSubmit=${submit}>
    <label for="key">This service asks for a key</label>
    ${hasKey() && html`<p>The key that you typed was not accepted.</p>`}
    <p class="row"><input id="key" name="key" type="password" autocomplete="off" required /><button class="main">Use it</button></p>
    <p class="quiet">It stays in this tab, and is sent to this service alone.</p>
  </form>`;
}

function Console() {
  const place = usePlace();
  const [needsKey, setNeedsKey] = useState(false);
  const [keys, setKeys] = useState(0);
  useEffect(() => onKeyNeeded(() => setNeedsKey(true)), []);
  const current = PARENTS[place.name] ?? place.name.replace("/", "");
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="top">
      <a class="brand" href=${page("")} aria-label="Image inference: Try"><svg viewBox="0 0 16 16" aria-hidden="true"><rect width="16" height="16" rx="4" /><path d="M4 11V8m4 3V4m4 7V6" /></svg><span>Image inference</span></a>
      <nav aria-label="Pages">
        ${Object.entries(NAVIGATION).map(
          ([name, title]) => html`<a key=${name} href=${page(name)} aria-current=${name === current ? "page" : undefined}>${title}</a>`,
        )}
        ${SETTINGS.has_docs && html`<a class="outside" href=${`${ROOT}docs`}>API</a>`}
      </nav>
    </header>
    <main id="main" tabindex="-1">
      ${needsKey && html`<${KeyForm} onDone=${() => (setNeedsKey(false), setKeys(keys + 1))} />`}
      <${Page} key=${keys} place=${place} />
    </main>
  `;
}

render(html`<${Console} />`, document.getElementById("page"));
