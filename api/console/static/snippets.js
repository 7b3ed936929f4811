// The request of the page Try as programs send it.
import { useState } from "preact/hooks";
import { Copy, html } from "./parts.js";
import { ROOT, hasKey } from "./service.js";

const root = ROOT.slice(0, -1);
/** A text in single quotes for a shell. */
const shell = (text) => (/^[\w@=./:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const python = (text) => JSON.stringify(text);

function curl(names, model, options = []) {
  const many = names.length > 1;
  const forms = [...names.map((name) => `image=@${name}`), `model=${model}`, "top_k=5", "prediction=false"];
  const key = hasKey() ? ["-H 'Authorization: Bearer '\"$KEY\""] : [];
  return ["curl", ...key, ...options, ...forms.map((form) => `-F ${shell(form)}`), `${root}/inference${many ? "/batch" : ""}`].join(" \\\n  ");
}

function requestsCode(names, model) {
  const many = names.length > 1;
  const headers = hasKey() ? `\n    headers={"Authorization": f"Bearer {KEY}"},` : "";
  const files = names.map((name) => `("image", open(${python(name)}, "rb"))`).join(", ");
  const shown = many ? `for item in answer.json()["items"]:\n    print(item["status"], item["result"])` : `print(answer.json()["response"])`;
  return `import requests

answer = requests.post(
    ${python(`${root}/inference${many ? "/batch" : ""}`)},${headers}
    files=[${files}],
    data={"model": ${python(model)}, "top_k": 5, "prediction": "false"},
    timeout=60,
)
answer.raise_for_status()
${shown}`;
}

function later(names, model) {
  const path = names.length > 1 ? "batches/BATCH_ID" : "tasks/TASK_ID";
  const key = hasKey() ? `-H 'Authorization: Bearer '"$KEY" ` : "";
  return `# answered at once with an id\n${curl(names, model, ["-H 'Prefer: respond-async'"])}\n
# the result, waiting up to 30 seconds for it\ncurl ${key}'${root}/${path}?wait=30'`;
}

const FORMS = { curl: curl, Python: requestsCode, "Ask later": later };

/** Ready-to-copy forms of a request with files of these names. */
export function Snippets({ names, model }) {
  const [form, setForm] = useState("curl");
  const text = FORMS[form](names.length ? names : ["photo.jpg"], model);
  return html`<section class="snippets">
    <h2>The same from a program</h2>
    <div class="row">
      <div class="choice" role="group" aria-label="Form">
        ${Object.keys(FORMS).map(
          (name) => html`<button key=${name} type="button" aria-pressed=${name === form} onClick=${() => setForm(name)}>${name}</button>`,
        )}
      </div>
      <${Copy} text=${text} what=${form} />
    </div>
    <pre tabindex="0" aria-label=${`${form} request`}>${text}</pre>
  </section>`;
}
