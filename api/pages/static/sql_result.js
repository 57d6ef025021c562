// The rows of an answer: a table of the first, and a plot of two columns.
import { plain } from "./texts.js";

const SHOWN = 1000; // rows in the table
const LONGEST = 500; // characters of a cell
const count = new Intl.NumberFormat("en");
const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** An answer, with whole numbers that JavaScript would round as text of all their digits. */
export const read = (text) =>
  JSON.parse(text, (_, value, about) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(about?.source ?? "") ? about.source : value,
  );

const number = (type) => /^(U?(TINY|SMALL|BIG|HUGE)?INT|DOUBLE|FLOAT|REAL|DECIMAL)/.test(type) && !type.endsWith("]");
const moment = (type) => /^(DATE|TIMESTAMP)/.test(type) && !type.endsWith("]");

/** A value as text that cannot steer the page. */
const shown = (value) => {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const short = text.length > LONGEST ? `${text.slice(0, LONGEST)} … (${count.format(text.length)} characters)` : text;
  return plain(short);
};

/** The same where plotly takes text for markup. */
const inert = (value) => shown(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

export class Result {
  constructor(place, said) {
    this.place = place;
    this.said = said;
    this.controls = place.querySelector("#plot-controls").elements;
    this.plotting = place.querySelector("#plotting");
    this.plotting.addEventListener("toggle", () => this.plot());
    place.querySelector("#plot-controls").addEventListener("change", () => this.plot());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plot());
  }

  show(answer) {
    this.answer = answer;
    const { columns, rows, truncated, seconds } = answer;
    const of = truncated ? `the first ${count.format(rows.length)} rows, there are more` : `${count.format(rows.length)} rows`;
    const part = rows.length > SHOWN ? `; ${count.format(SHOWN)} are shown` : "";
    this.said.textContent = `${of}${part}, in ${seconds.toFixed(2)} s.`;
    this.place.querySelector("#rows").replaceChildren(this.table());
    const names = (chosen) => columns.map(({ name }, at) => new Option(shown(name), at, false, at === chosen));
    const numbers = columns.flatMap(({ type }, at) => (number(type) ? [at] : []));
    this.controls.x.replaceChildren(...names(numbers.length > 1 ? numbers[0] : 0));
    this.controls.y.replaceChildren(...names(numbers[1] ?? numbers[0] ?? 0));
    this.place.hidden = false;
    this.plot();
  }

  table() {
    const { columns, rows } = this.answer;
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const { name, type } of columns) {
      const cell = Object.assign(document.createElement("th"), { scope: "col", className: number(type) ? "n" : "", title: type });
      cell.append(Object.assign(document.createElement("bdi"), { textContent: shown(name) }));
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of rows.slice(0, SHOWN)) {
      const line = body.insertRow();
      row.forEach((value, at) => {
        const cell = line.insertCell();
        cell.className = value === null ? "dim" : number(columns[at].type) ? "n" : "";
        cell.append(Object.assign(document.createElement("bdi"), { textContent: shown(value) }));
      });
    }
    return table;
  }

  plot() {
    if (!this.answer || !this.plotting.open) return;
    const side = (field) => {
      const { name, type } = this.answer.columns[field.value];
      const values = this.answer.rows.map((row) => row[field.value]);
      const title = { text: inert(name), font: { size: 12 } };
      const kind = number(type) ? "linear" : moment(type) ? "date" : "category";
      return [
        kind === "category" ? values.map((value) => (value === null ? null : inert(value))) : values,
        { title, type: kind, gridcolor: styled("line"), linecolor: styled("line"), zeroline: false, automargin: true },
      ];
    };
    const [x, xaxis] = side(this.controls.x);
    const [y, yaxis] = side(this.controls.y);
    const trace = { type: this.controls.kind.value, mode: "markers", x, y, marker: { color: styled("after") } };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: styled("dim"), size: 11, family: "system-ui, sans-serif" },
      margin: { l: 8, r: 8, t: 8, b: 8 },
      hovermode: "closest",
      xaxis,
      yaxis,
    };
    window.Plotly.react(this.place.querySelector("#plot"), [trace], layout, { displayModeBar: false, responsive: true });
  }
}
