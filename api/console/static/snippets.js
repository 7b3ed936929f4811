// The request of the page Try as programs send it.
import { useState } from "preact/hooks";
import { Copy, html } from "./parts.js";
import { ROOT, hasKey } from "./service.js";

const root = ROOT.slice(0, -1);
/** A text as one word of a shell. */
const shell = (text) => (/^[\w@=./:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
/** The value of a form's field that is a file: a name with , or ; needs quotes of curl's own. */
const file = (name) => (/[,;"]/.test(name) ? `"${name.replaceAll(/["\\]/g, "\\$&")}"` : name);
const python = (value) => JSON.stringify(value);
const key = () => (hasKey() ? ['-H "Authorization: Bearer $KEY"'] : []);
const lines = (words) => words.join(" \\\n  ");

function curl(names, model, options = []) {
  const forms = [...names.map((name) => `image=@${file(name)}`), `model=${model}`, "top_k=5", "prediction=false"];
  const path = names.length > 1 ? "/inference/batch" : "/inference";
  return lines(["curl", ...key(), ...options, ...forms.map((form) => `-F ${shell(form)}`), `${root}${path}`]);
}

function later(names, model) {
  const path = names.length > 1 ? "batches/BATCH_ID" : "tasks/TASK_ID";
  const ask = ["curl", ...key(), `'${root}/${path}?wait=30'`].join(" ");
  return `# answered at once, with an id\n${curl(names, model, ["-H 'Prefer: respond-async'"])}\n\n# the result, waiting up to 30 seconds for it\n${ask}`;
}

function client(names, model) {
  const options = `model=${python(model)}, top_k=5, prediction=False`;
  const begin = `# in a clone of the service: pip install ./client\nfrom rohe_inference import Client\n\nclient = Client(${python(root)}${hasKey() ? ", api_key=KEY" : ""})\n`;
  if (names.length === 1) return `${begin}prediction = client.predict(${python(names[0])}, ${options})\nprint(prediction.label, prediction.confidence_level)`;
  return `${begin}batch = client.batch([${names.map(python).join(", ")}], ${options})\nfor item in batch.items:\n    print(item.status, item.result and item.result.label)`;
}

/** The Open Inference Protocol: image files as a tensor of bytes. */
function v2(names, model) {
  const data = names.map((name) => `"$(base64 < ${shell(name)} | tr -d '\\n')"`).join(", ");
  const body = `{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [${names.length}], "data": [${data}]}],
 "outputs": [{"name": "prediction", "parameters": {"classification": 5}}]}`;
  const words = ["curl", ...key(), "-H 'Content-Type: application/json'", `--data-binary @- ${root}/v2/models/${encodeURIComponent(model)}/infer <<END`];
  return `${lines(words)}\n${body}\nEND`;
}

const LANGUAGES = { curl, Python: client, "Ask later": later, V2: v2 };

/** Ready-to-copy forms of a request with files of these names. */
export function Snippets({ names, model }) {
  const [language, setLanguage] = useState("curl");
  const text = LANGUAGES[language](names.length ? names : ["photo.jpg"], model);
  return html`<section class="snippets">
    <h2>The same from a program</h2>
    <div class="row">
      <div class="choice" role="group" aria-label="Form">
        ${Object.keys(LANGUAGES).map(
          (name) => html`<button key=${name} type="button" aria-pressed=${name === language} onClick=${() => setLanguage(name)}>${name}</button>`,
        )}
      </div>
      <${Copy} text=${text} what=${language} />
    </div>
    <pre tabindex="0" aria-label=${`${language} request`}>${text}</pre>
  </section>`;
}
