// The frame of the console: navigation, the page that fits the URL, and signing in.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Heading, ProblemNote, html, page } from "./parts.js";
import { ROOT, SETTINGS, hasKey, mayReadAll, signIn, signOut, signedInAs } from "./service.js";

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
  const [name, subject, ...rest] = url.pathname.slice(page("").length).split("/");
  const known = subject === undefined ? name : subject && !rest.length ? `${name}/` : null;
  return { name: known, subject: decodeURIComponent(subject || ""), query: url.search };
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
  if (!PAGES[place.name]) {
    return html`<${Heading} title="Nothing is here" />
      <p>The console has no page at <code>${location.pathname}</code>. It has <a href=${page("")}>Try</a>, <a href=${page("tasks")}>Tasks</a>, <a href=${page("queue")}>Queue</a> and <a href=${page("models")}>Models</a>.</p>`;
  }
  if (shown?.name !== place.name) return null;
  return html`<${shown.Component} key=${place.name + place.subject} subject=${place.subject} query=${place.query} />`;
}

/** The page while the service asks for a key. */
function SignIn({ onDone }) {
  const [{ problem, isBusy }, setState] = useState({});
  const submit = async (event) => {
    event.preventDefault();
    const key = new FormData(event.target).get("key").trim();
    setState({ isBusy: true });
    try {
      await signIn(key);
      onDone();
    } catch (error) {
      setState({ problem: error });
    }
  };
  return html`<${Heading} title="Sign in" />
    <form class="sign-in" onSubmit=${submit}>
      <p>${hasKey() ? "The key that you typed is not valid any more." : "This service asks for a key."}</p>
      ${problem?.status === 401 ? html`<p class="note bad" role="alert">This key is not valid. Is it complete, and not expired?</p>` : html`<${ProblemNote} problem=${problem} />`}
      <div class="field"><label for="key">Key</label>
        <input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required autofocus pattern="\\s*[!-~]+\\s*" title="letters, digits and signs without spaces" placeholder="rk_…" /></div>
      <p><button class="main" disabled=${isBusy}>Sign in</button></p>
      <p class="quiet">It is kept until this tab is closed, and sent to this service alone. No key yet? Whoever runs the service makes one: <code>server.py keys create --owner NAME --role predict</code></p>
    </form>`;
}

function Console() {
  const place = usePlace();
  const [{ needsKey, session }, setState] = useState({ needsKey: false, session: 0 });
  useEffect(() => addEventListener("key-needed", () => setState((now) => ({ ...now, needsKey: true }))), []);
  const begin = () => setState({ needsKey: false, session: session + 1 });
  const leave = () => (signOut(), begin());
  const current = PARENTS[place.name] ?? place.name?.replace("/", "");
  const pages = Object.entries(NAVIGATION).filter(([name]) => name !== "queue" || mayReadAll());
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="top">
      <a class="brand" href=${page("")} aria-label="Image inference: Try"><svg viewBox="0 0 16 16" aria-hidden="true"><rect width="16" height="16" rx="4" /><path d="M4 11V8m4 3V4m4 7V6" /></svg><span>Image inference</span></a>
      <nav aria-label="Pages">
        ${!needsKey && pages.map(([name, title]) => html`<a key=${name} href=${page(name)} aria-current=${name === current ? "page" : undefined}>${title}</a>`)}
        ${SETTINGS.has_docs && html`<a class="outside" href=${`${ROOT}docs`}>API</a>`}
      </nav>
      ${hasKey() && !needsKey && html`<p class="row"><span class="quiet">${signedInAs()}</span><button type="button" class="small" onClick=${leave}>Sign out</button></p>`}
    </header>
    <main id="main" tabindex="-1">
      ${needsKey ? html`<${SignIn} onDone=${begin} />` : html`<${Page} key=${session} place=${place} />`}
    </main>
  `;
}

render(html`<${Console} />`, document.getElementById("page"));
