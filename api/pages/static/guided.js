// A run, step by step: the method, how much to keep, the method's options, and its progress.
import { follow } from "./progress.js";
import { ask } from "./service.js";

const form = document.getElementById("guided");
const guide = form && JSON.parse(document.getElementById("guide").textContent);
const count = new Intl.NumberFormat("en");

/** A field for one option, by its schema. */
const field = (name, about) => {
  const label = document.createElement("label");
  label.className = "option";
  let input;
  if (about.enum) {
    input = document.createElement("select");
    for (const value of about.enum) input.append(new Option(String(value), JSON.stringify(value)));
    input.value = JSON.stringify(about.default);
  } else {
    input = document.createElement("input");
    if (about.type === "boolean") {
      input.type = "checkbox";
      input.checked = about.default;
    } else {
      input.value = about.default;
      input.inputMode = about.type === "string" ? "text" : "decimal";
    }
  }
  input.name = name;
  input.dataset.kind = about.enum ? "json" : about.type;
  const words = document.createElement("span");
  words.textContent = about.description;
  words.className = "dim";
  label.append(`${name} `, input, " ", words);
  return label;
};

const valueOf = (input) => {
  if (input.dataset.kind === "json") return JSON.parse(input.value);
  if (input.dataset.kind === "boolean") return input.checked;
  return input.dataset.kind === "string" ? input.value : Number(input.value);
};

const chosen = () => guide.methods[form.elements.method.value];

const showOptions = () => {
  const { options, target } = chosen();
  const fields = Object.entries(options).map(([name, about]) => field(name, about));
  const none = Object.assign(document.createElement("p"), { className: "dim", textContent: "It has none." });
  document.getElementById("options").replaceChildren(...(fields.length ? fields : [none]));
  document.getElementById("target").hidden = !target;
};

const showKeep = () => {
  const share = Number(form.elements.keep.value);
  const samples = Number(document.getElementById("accepted").textContent);
  form.elements.keep.nextElementSibling.value = `${share} %`;
  const about = Math.ceil((share / 100) * samples);
  document.getElementById("keep-said").textContent = `about ${count.format(about)} of ${count.format(samples)} samples`;
};

const start = async () => {
  const wrong = document.getElementById("start-wrong");
  const place = document.getElementById("started");
  const button = form.querySelector("button");
  const { options, target } = chosen();
  const given = [...document.querySelectorAll("#options [name]")].map((input) => [input.name, valueOf(input)]);
  const changed = given.filter(([name, value]) => value !== options[name].default);
  const body = {
    dataset: guide.dataset,
    method: form.elements.method.value,
    keep: { share: Number(form.elements.keep.value) / 100 },
    options: Object.fromEntries(changed),
    measuring: { model: form.elements.model.value },
  };
  if (target) body.target = form.elements.target.value;
  wrong.hidden = true;
  button.disabled = true;
  try {
    const job = await ask("/v1/runs", { method: "POST", body });
    place.hidden = false;
    const ended = await follow(job.id, place);
    if (ended.state !== "succeeded") throw new Error(ended.error?.detail ?? ended.state);
    location.assign(`/runs/${ended.result.run_id}`);
  } catch (error) {
    wrong.textContent = error.message;
    wrong.hidden = false;
    button.disabled = false;
  }
};

if (form) {
  form.addEventListener("change", (event) => event.target.name === "method" && showOptions());
  form.elements.keep.addEventListener("input", showKeep);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  showOptions();
  showKeep();
}
