// The rows most like one, looked for when somebody asks.
import { ask } from "./service.js";
import { plain } from "./texts.js";

const VECTORS = { sentence_embedding: "sentence embeddings", mean_hidden: "the proxy model's mean hidden states" };
const HEADS = ["row", "cosine", "became", "prompt begins", "response begins"];

const cell = (tag, content, more = {}) => {
  const made = Object.assign(document.createElement(tag), more);
  made.append(content);
  return made;
};

/** A text of a row, which may run in any direction. */
const excerpt = (text) => cell("td", cell("bdi", plain(text ?? "–")), { className: "excerpt" });

const table = (found, run) => {
  const head = document.createElement("tr");
  head.append(...HEADS.map((name) => cell("th", name, { scope: "col" })));
  const lines = found.rows.map((each) => {
    const line = document.createElement("tr");
    const link = cell("a", each.row.toLocaleString("en"), { href: `/runs/${run}/rows/${each.row}` });
    line.append(cell("th", link, { scope: "row" }), cell("td", each.cosine.toFixed(4)), cell("td", each.status));
    line.append(excerpt(each.prompt), excerpt(each.response));
    return line;
  });
  const caption = `By ${VECTORS[found.vectors]}, of ${found.samples.toLocaleString("en")} samples`;
  const made = document.createElement("table");
  made.append(cell("caption", caption));
  made.createTHead().append(head);
  made.createTBody().append(...lines);
  return cell("div", made, { className: "scroll", tabIndex: 0 });
};

/** Let the button of a place look for them, and show them there. */
export const findNearest = (place) => {
  if (!place) return;
  const { run, sample } = place.dataset;
  const button = place.querySelector("button");
  const told = place.querySelector("[role=status]");
  place.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    told.textContent = "Comparing it with all samples …";
    try {
      place.replaceChildren(table(await ask(`/runs/${run}/rows/${sample}/nearest.json`), run));
      place.firstChild.focus();
    } catch (error) {
      told.textContent = error.message;
      button.disabled = false;
    }
  });
};
