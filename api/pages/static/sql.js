// The SQL page: a statement is written, run, ended, and its rows are shown, plotted and downloaded.
import { fetched } from "./service.js";
import { listed } from "./sql_columns.js";
import { keeping } from "./sql_saved.js";
import { Result, read } from "./sql_result.js";

const form = document.getElementById("asked");
const editor = document.getElementById("statement");
const end = document.getElementById("end");
const wrong = document.getElementById("wrong");
const said = document.getElementById("said");
const result = new Result(document.getElementById("result"), said);
let running = null; // what ends the statement that runs
let answered = null; // the statement that the rows shown are of

/** Put the caret where DuckDB's message has its own: "LINE 2: …" over a line with ^. */
const mark = (message) => {
  const found = /LINE (\d+): (.*)\n( *)(\^+)/.exec(message);
  if (!found) return;
  const [, number, text, blank, under] = found;
  const column = blank.length - `LINE ${number}: `.length;
  const lines = editor.value.split("\n");
  const line = lines[number - 1] ?? "";
  const part = text.replace(/^\.\.\.|\.\.\.$/g, ""); // a long line is cut at both ends
  const cut = line.indexOf(part) - (text.startsWith("...") ? 3 : 0);
  const start = lines.slice(0, number - 1).join("\n").length + (number > 1 ? 1 : 0) + cut + column;
  editor.focus();
  editor.setSelectionRange(start, start + under.length);
};

/** What `act` gives for an answer of the service; null where it was ended or went wrong, which is said. */
const asked = async (body, act) => {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  wrong.hidden = true;
  end.disabled = false;
  said.textContent = "Running …";
  try {
    await act(await fetched("/v1/sql", { method: "POST", body, signal: mine.signal }));
  } catch (error) {
    if (running !== mine) return; // another was asked for meanwhile
    if (mine.signal.aborted) {
      said.textContent = "Ended before there was an answer.";
      return;
    }
    said.textContent = "There is no answer.";
    wrong.textContent = error.about ? [error.about.detail ?? error.message, error.about.remedy].filter(Boolean).join("\n\n") : String(error);
    wrong.hidden = false;
    mark(error.about?.detail ?? "");
  } finally {
    if (running === mine) {
      running = null;
      end.disabled = true;
    }
  }
};

const run = () => {
  const sql = editor.value;
  return asked({ sql, format: "json" }, async (answer) => {
    result.show(read(await answer.text()));
    answered = sql;
  });
};

const download = (format) =>
  asked({ sql: answered, format }, async (answer) => {
    const address = URL.createObjectURL(await answer.blob());
    Object.assign(document.createElement("a"), { href: address, download: `result.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    const cut = answer.headers.get("Datapruner-Truncated") === "true";
    said.textContent = cut ? "Downloaded: the first rows, as there are more than the limits allow." : "Downloaded: all rows.";
  });

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
editor.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
end.addEventListener("click", () => running?.abort());
for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => download(button.dataset.download));
}
keeping(editor);
listed((name) => {
  editor.setRangeText(name, editor.selectionStart, editor.selectionEnd, "end");
  editor.focus();
});
