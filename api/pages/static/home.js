// The first page: a file becomes a dataset, with the progress of its upload.
import { ask, send, watch } from "./service.js";
import { said } from "./progress.js";

const form = document.getElementById("upload");

const nameOf = (file) => {
  const plain = file.toLowerCase().replace(/\.(jsonl?|csv|parquet|arrow|gz|zst)(?=\.|$)/g, "");
  return plain.replace(/[^a-z0-9]+/g, "_").replace(/^[^a-z]+|_+$/g, "").slice(0, 63);
};

/** Take back a dataset of which nothing could be read, so that its name is free for the next try. */
const takeBack = async (name) => {
  const { id, latest } = await ask(`/v1/datasets/${name}`);
  if (!latest) await ask(`/v1/datasets/${id}`, { method: "DELETE" });
};

const upload = async () => {
  const wrong = document.getElementById("upload-wrong");
  const place = document.getElementById("uploading");
  const words = document.getElementById("upload-said");
  const bar = document.getElementById("upload-bar");
  const button = form.querySelector("button");
  wrong.hidden = true;
  place.hidden = false;
  button.disabled = true;
  const fields = new FormData();
  fields.append("name", form.elements.name.value); // fields before the file: they are checked before it is read
  fields.append("file", form.elements.file.files[0]);
  try {
    const job = await send("/v1/datasets", fields, (part) => {
      bar.value = part;
      words.textContent = `${Math.round(100 * part)} % sent`;
    });
    bar.removeAttribute("value");
    const ended = await watch(job.id, (now) => (words.textContent = said(now)));
    if (ended.state !== "succeeded") {
      await takeBack(fields.get("name")).catch(() => {});
      throw new Error(said(ended));
    }
    location.assign(`/datasets/${ended.result.dataset_id}`);
  } catch (error) {
    wrong.textContent = error.message;
    wrong.hidden = false;
    place.hidden = true;
    button.disabled = false;
  }
};

if (form) {
  const chosen = () => {
    const file = form.elements.file.files[0];
    if (file && !form.elements.name.value) form.elements.name.value = nameOf(file.name);
  };
  form.elements.file.addEventListener("change", chosen);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    upload();
  });
  form.addEventListener("dragover", (event) => {
    event.preventDefault();
    form.classList.add("over");
  });
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    if (event.dataTransfer.files.length) {
      form.elements.file.files = event.dataTransfer.files;
      chosen();
    }
  });
}
