// A run, step by step: the method, how much to keep, the method's options, and its progress.
import { foresees } from "./foreseen.js";
import { follow } from "./progress.js";
import { ask } from "./service.js";

const form = document.getElementById("guided");
const guide = form && JSON.parse(document.getElementById("guide").textContent);

/** A field for one option, by its schema. */
const field = (name, about) => {
  const label = document.createElement("label");
  label.className = "option";
  let input;
  if (about.enum) {
    input = document.createElement("select");
    for (const value of about.enum) input.append(new Option(String(value), JSON.stringify(value)));
  } else {
    input = document.createElement("input");
    if (about.type === "boolean") input.type = "checkbox";
    else input.inputMode = about.type === "string" ? "text" : "decimal";
  }
  input.name = name;
  input.dataset.kind = about.enum ? "json" : about.type;
  put(input, about.default);
  const words = document.createElement("span");
  words.textContent = about.description;
  words.className = "dim";
  label.append(`${name} `, input, " ", words);
  return label;
};

const put = (input, value) => {
  if (input.dataset.kind === "json") input.value = JSON.stringify(value);
  else if (input.dataset.kind === "boolean") input.checked = value;
  else input.value = value;
};

const valueOf = (input) => {
  if (input.dataset.kind === "json") return JSON.parse(input.value);
  if (input.dataset.kind === "boolean") return input.checked;
  return input.dataset.kind === "string" ? input.value : Number(input.value);
};

const chosen = () => guide.methods[form.elements.method.value];
const optionFields = () => [...document.querySelectorAll("#options [name]")];

/** What the method takes besides rows, with the options as they are. */
const taken = () => {
  const { takes, besides } = chosen();
  const more = optionFields().flatMap((input) => besides[input.name]?.[valueOf(input)] ?? []);
  const all = new Set([...takes, ...more]);
  if (all.has("reference") && form.elements.tuned.value) all.add("target");
  return all;
};

const showTaken = () => {
  const all = taken();
  for (const place of form.querySelectorAll("[data-takes]")) place.hidden = !all.has(place.dataset.takes);
  document.getElementById("reference").hidden = Boolean(form.elements.tuned.value);
};

const showOptions = () => {
  const { options, presets } = chosen();
  const fields = Object.entries(options).map(([name, about]) => field(name, about));
  const none = Object.assign(document.createElement("p"), { className: "dim", textContent: "It has none." });
  document.getElementById("options").replaceChildren(...(fields.length ? fields : [none]));
  const names = Object.keys(presets);
  document.getElementById("presets").hidden = !names.length;
  form.elements.preset.replaceChildren(new Option("none", ""), ...names.map((name) => new Option(name, name)));
};

/** The options, and how much to keep, as a published setting has them. */
const setPreset = () => {
  const { options, presets } = chosen();
  const { keep, ...set } = presets[form.elements.preset.value] ?? {};
  for (const input of optionFields()) put(input, set[input.name] ?? options[input.name].default);
  if (keep !== undefined) form.elements.keep.value = Math.round(100 * keep);
};

const showKeep = () => (form.elements.keep.nextElementSibling.value = `${form.elements.keep.value} %`);

/** What is asked of the service. */
const body = () => {
  const { options } = chosen();
  const changed = optionFields().filter((input) => valueOf(input) !== options[input.name].default);
  const all = taken();
  const said = (name) => form.elements[name].value.trim() || undefined; // what is not said is for the service to miss
  const measuring = { model: said("model") };
  if (all.has("reference")) measuring.reference = form.elements.tuned.value ? "tuned" : said("reference");
  if (all.has("reward_model")) measuring.reward_model = said("reward_model");
  return {
    dataset: guide.dataset,
    method: form.elements.method.value,
    keep: { share: Number(form.elements.keep.value) / 100 },
    options: Object.fromEntries(changed.map((input) => [input.name, valueOf(input)])),
    measuring,
    target: all.has("target") ? said("target") : undefined,
  };
};

const start = async () => {
  const wrong = document.getElementById("start-wrong");
  const place = document.getElementById("started");
  const button = form.querySelector("button");
  wrong.hidden = true;
  button.disabled = true;
  try {
    const job = await ask("/v1/runs", { method: "POST", body: body() });
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
  const foresee = foresees(document.getElementById("foreseen"), body);
  form.addEventListener("input", (event) => {
    if (event.target.name === "method") showOptions();
    if (event.target.name === "preset") setPreset();
    showTaken();
    showKeep();
    foresee();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  document.getElementById("origin").textContent = location.origin;
  showOptions();
  showTaken();
  showKeep();
  foresee();
}
