// The samples of a run over two of its columns: points or cells on a canvas under plotly's axes, and the rows
// inside of a line that is drawn around them.
import { ask } from "./service.js";
import { plain } from "./texts.js";
import { nearest, under } from "./under.js";

const count = new Intl.NumberFormat("en");
const short = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toLocaleString("en"));
const MARGIN = { l: 8, r: 8, t: 30, b: 36 };
const HUES = ["#1f77b4", "#d95f02", "#2a9d6f", "#c23b78", "#7a6fd0", "#9a7b00", "#3aa6b9", "#8c564b", "#808890"];
const FATES = { kept: "#1f77b4", scored: "#1f77b4", pruned: "#d95f02", error: "#c23b78", rejected: "#808890" };

const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const drawn = (axis, value) => (axis.scale === "log" ? Math.log10(value) : value);
const meant = (axis, place) => (axis.scale === "log" ? 10 ** place : place);

/** From one colour to another, both #rrggbb. */
const mixed = (from, to, part) => {
  const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [a, b] = [parts(from), parts(to)];
  return `rgb(${a.map((each, i) => Math.round(each + (b[i] - each) * part)).join(",")})`;
};

/** From where to where the samples and cells of the view lie, in the units that are drawn. */
const edges = (view, part) => {
  const side = (axis, low, high) => {
    const ends = [low ?? drawn(axis, axis.low), high ?? drawn(axis, axis.high)];
    return ends[1] > ends[0] ? ends : [ends[0], ends[0] + 1];
  };
  return { x: side(view.x, part.x0, part.x1), y: side(view.y, part.y0, part.y1) };
};

/** Where the view ends: a little more than what is in it, where that is everything. */
const frame = (view, part) => {
  const { x, y } = edges(view, part);
  const room = ([low, high]) => (part.x0 === undefined ? 0.02 * (high - low) : 0);
  return { x: [x[0] - room(x), x[1] + room(x)], y: [y[0] - room(y), y[1] + room(y)] };
};

/** The quadrants that are in view, by their corners: beyond the thresholds of both axes. */
const quadrants = (view, ends) => {
  const found = [];
  const cut = (axis, end) => axis.cuts[`${axis.column}_${end}`];
  for (const [name, perplexity, entropy] of [["Q1", "high", "high"], ["Q2", "high", "low"], ["Q3", "low", "low"], ["Q4", "low", "high"]]) {
    const side = (axis, range) => {
      const end = { ppl: perplexity, entropy }[axis.column];
      const at = end && cut(axis, end);
      if (at === undefined) return null;
      const inView = end === "high" ? range[1] > drawn(axis, at) : range[0] < drawn(axis, at);
      return inView ? end : null;
    };
    const [x, y] = [side(view.x, ends.x), side(view.y, ends.y)];
    if (x && y && view.x.column !== view.y.column) found.push({ name, x: x === "high" ? 1 : 0, y: y === "high" ? 1 : 0 });
  }
  return found;
};

const colouring = (view) => {
  if (view.names) {
    const hue = (name, at) => FATES[name] ?? HUES[at % HUES.length];
    const hues = view.names.map(hue);
    return { of: (value) => (value === null ? "#808890" : hues[value]), hues };
  }
  const values = view.points.colour.filter((value) => value !== null && Number.isFinite(value)).sort((a, b) => a - b);
  const low = values[Math.floor(0.02 * values.length)] ?? 0;
  const high = values[Math.ceil(0.98 * (values.length - 1))] ?? 1;
  const place = (value) => Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
  return { of: (value) => (value === null ? "#808890" : mixed(styled("low"), styled("high"), place(value))), low, high };
};

/** The picture under the axes, of so many pixels, as the address of its bytes. */
const picture = (view, part, ends, colours, size) => {
  const canvas = Object.assign(document.createElement("canvas"), size);
  const pen = canvas.getContext("2d");
  const at = (value, [low, high], size) => ((value - low) / (high - low)) * size;
  if (view.points) {
    const { x, y, colour } = view.points;
    const radius = (x.length > 20000 ? 1.2 : x.length > 2000 ? 2 : 3.5) * (window.devicePixelRatio || 1);
    pen.globalAlpha = x.length > 20000 ? 0.55 : 0.75;
    x.forEach((value, i) => {
      pen.fillStyle = colours.of(colour[i]);
      const left = at(drawn(view.x, value), ends.x, size.width);
      const top = size.height - at(drawn(view.y, y[i]), ends.y, size.height);
      pen.beginPath();
      pen.arc(left, top, radius, 0, 2 * Math.PI);
      pen.fill();
    });
  } else {
    const { samples } = view.cells;
    const most = Math.log1p(Math.max(...samples.map((row) => Math.max(...row))));
    const [up, across] = [samples.length, samples[0].length];
    const { x, y } = edges(view, part);
    const left = (i) => at(x[0] + (i / across) * (x[1] - x[0]), ends.x, size.width);
    const top = (j) => size.height - at(y[0] + (j / up) * (y[1] - y[0]), ends.y, size.height);
    samples.forEach((row, j) =>
      row.forEach((n, i) => {
        if (!n) return;
        pen.fillStyle = mixed(styled("low"), styled("high"), Math.log1p(n) / most);
        pen.fillRect(left(i), top(j + 1), left(i + 1) - left(i) + 0.5, top(j) - top(j + 1) + 0.5);
      }),
    );
  }
  return canvas.toDataURL();
};

const cell = (kind, text, more = {}) => Object.assign(document.createElement(kind), { textContent: text, ...more });

class Plane {
  constructor(place) {
    this.place = place;
    this.run = place.dataset.run;
    this.plot = place.querySelector("#plane");
    this.controls = place.querySelector("#plane-controls").elements;
    this.said = place.querySelector("#plane-said");
    this.found = place.querySelector("#found");
    this.part = {};
    this.asked = 0;
  }

  /** The columns and the first view of them, both asked for at once. */
  first() {
    return Promise.all([ask(`/runs/${this.run}/columns.json`), ask(`/runs/${this.run}/plane.json`)]);
  }

  begin(columns, view) {
    this.place.hidden = false;
    const fillIn = (select, found, chosen) =>
      Object.entries(found).forEach(([name, text]) =>
        select.append(cell("option", name, { value: name, title: text, selected: name === chosen })),
      );
    fillIn(this.controls.x, columns.numbers, columns.x);
    fillIn(this.controls.y, columns.numbers, columns.y);
    fillIn(this.controls.colour, { ...columns.names, ...columns.numbers }, "status");
    this.place.querySelector("#plane-controls").addEventListener("change", () => this.whole());
    this.place.querySelector("#plane-whole").addEventListener("click", () => this.whole());
    this.place.querySelector("#plane-part").addEventListener("submit", (event) => {
      event.preventDefault();
      this.byNumbers(event.target.elements);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    under(this.plot, (place, unit) => this.told(place, unit));
    this.show(view);
  }

  whole() {
    this.part = {};
    return this.load();
  }

  query(more) {
    const { x, y, colour } = this.controls;
    const given = { x: x.value, y: y.value, colour: colour.value, ...this.part, ...more };
    return new URLSearchParams(Object.entries(given).filter(([, value]) => value !== undefined && value !== ""));
  }

  async load() {
    const asked = ++this.asked;
    try {
      const view = await ask(`/runs/${this.run}/plane.json?${this.query({})}`);
      if (asked === this.asked) this.show(view); // else another was asked for meanwhile
    } catch (error) {
      this.said.textContent = error.message;
    }
  }

  show(view) {
    this.view = view;
    if (view.points) {
      const placed = (axis, values) => Float64Array.from(values, (value) => drawn(axis, value));
      this.at = { x: placed(view.x, view.points.x), y: placed(view.y, view.points.y) };
    }
    this.draw();
  }

  /** In words, what is at a place: the nearest sample, or how many are in a cell. */
  told(place, unit) {
    const { x, y, points, cells, names, colour } = this.view;
    if (points) {
      const i = nearest(this.at, place, unit);
      if (i === null) return null;
      const shade = names ? names[points.colour[i]] ?? "–" : short(points.colour[i]);
      const said = [`row ${count.format(points.row[i])}`, `${x.column} ${short(points.x[i])}`, `${y.column} ${short(points.y[i])}`];
      if (colour !== x.column && colour !== y.column) said.push(`${colour} ${shade}`);
      return said.join(", ");
    }
    const ends = edges(this.view, this.part);
    const at = (value, [low, high], size) => Math.floor(((value - low) / (high - low)) * size);
    const [i, j] = [at(place.x, ends.x, cells.samples[0].length), at(place.y, ends.y, cells.samples.length)];
    const n = cells.samples[j]?.[i];
    if (!n) return null;
    const kept = cells.kept ? `, ${count.format(cells.kept[j][i])} of them kept` : "";
    return `${count.format(n)} samples${kept}, near ${x.column} ${short(meant(x, place.x))}, ${y.column} ${short(meant(y, place.y))}`;
  }

  /** Pixels of the part between the axes; before they are drawn, about so many. */
  size() {
    const known = this.plot._fullLayout?._size ?? { w: this.plot.clientWidth - 60, h: this.plot.clientHeight - 70 };
    const fine = window.devicePixelRatio || 1;
    return { width: Math.max(100, Math.round(known.w * fine)), height: Math.max(100, Math.round(known.h * fine)) };
  }

  draw() {
    const { view } = this;
    const ends = frame(view, this.part);
    const colours = view.points ? colouring(view) : {};
    const side = (axis, range) => ({
      title: { text: axis.column, font: { size: 12 } },
      type: axis.scale,
      range,
      autorange: false,
      gridcolor: styled("line"),
      zeroline: false,
      automargin: true,
      exponentformat: "power",
    });
    const cuts = (axis, letter) =>
      Object.values(axis.cuts).map((at) => ({
        type: "line",
        [`${letter}0`]: at,
        [`${letter}1`]: at,
        [letter === "x" ? "y0" : "x0"]: 0,
        [letter === "x" ? "y1" : "x1"]: 1,
        [letter === "x" ? "yref" : "xref"]: "paper",
        line: { color: styled("cut"), width: 1.5, dash: "dot" },
      }));
    const image = {
      source: picture(view, this.part, ends, colours, this.size()),
      xref: "x domain",
      yref: "y domain",
      x: 0,
      y: 1,
      sizex: 1,
      sizey: 1,
      sizing: "stretch",
      layer: "below",
    };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: styled("dim"), size: 11, family: "system-ui, sans-serif" },
      margin: MARGIN,
      showlegend: false,
      dragmode: this.plot._fullLayout?.dragmode ?? "lasso",
      xaxis: side(view.x, ends.x),
      yaxis: side(view.y, ends.y),
      shapes: [...cuts(view.x, "x"), ...cuts(view.y, "y")],
      images: [image],
      annotations: quadrants(view, ends).map(({ name, x, y }) => ({
        text: name,
        showarrow: false,
        xref: "x domain",
        yref: "y domain",
        x,
        y,
        xanchor: x ? "right" : "left",
        yanchor: y ? "top" : "bottom",
        font: { color: styled("cut"), size: 13 },
      })),
      selections: [],
    };
    // One sample that is not seen: without any, plotly offers no lasso.
    const trace = { type: "scatter", mode: "markers", x: [view.x.high], y: [view.y.high], hoverinfo: "skip" };
    Object.assign(trace, { marker: { opacity: 0 }, selected: { marker: { opacity: 0 } }, unselected: { marker: { opacity: 0 } } });
    const config = {
      responsive: true,
      displaylogo: false,
      displayModeBar: true,
      modeBarButtons: [["lasso2d", "select2d", "zoom2d"]],
      doubleClick: false,
    };
    window.Plotly.react(this.plot, [trace], layout, config);
    if (!this.listening) {
      this.listening = true;
      this.plot.on("plotly_selected", (event) => event && this.chosen(event));
      this.plot.on("plotly_relayout", (event) => this.zoomed(event));
      this.plot.on("plotly_doubleclick", () => this.whole());
    }
    this.legend(colours);
    const drawnAs = view.points ? "each a point" : `in ${view.cells.samples[0].length} by ${view.cells.samples.length} cells: zoom in for points`;
    this.said.textContent = `${count.format(view.samples)} samples, ${drawnAs}. Draw a line around some to list their rows.`;
    this.place.querySelector("#part-x").textContent = view.x.column;
    this.place.querySelector("#part-y").textContent = view.y.column;
  }

  legend(colours) {
    const list = this.place.querySelector("#plane-legend");
    const entry = (colour, text) => {
      const line = document.createElement("li");
      const key = document.createElement("span");
      key.style.background = colour;
      line.append(key, text);
      return line;
    };
    if (!this.view.points) list.replaceChildren(entry(styled("low"), "few samples"), entry(styled("high"), "many"));
    else if (colours.hues) list.replaceChildren(...this.view.names.map((name, i) => entry(colours.hues[i], name)));
    else list.replaceChildren(entry(styled("low"), `${short(colours.low)} or less`), entry(styled("high"), `${short(colours.high)} or more`));
  }

  zoomed(event) {
    const named = ["xaxis.range[0]", "xaxis.range[1]", "yaxis.range[0]", "yaxis.range[1]"];
    const places = named.map((name) => event[name]);
    if (places.some((place) => place === undefined)) return;
    [this.part.x0, this.part.x1, this.part.y0, this.part.y1] = places.map((place) => Number(place.toPrecision(9)));
    this.load();
  }

  /** What was outlined, by a line or a box, in the numbers of the axes. */
  chosen(event) {
    const { x, y } = this.view;
    if (event.lassoPoints) {
      const [across, up] = [event.lassoPoints.x, event.lassoPoints.y];
      const every = Math.max(1, Math.ceil(across.length / 150));
      const corners = across.map((place, i) => [drawn(x, place), drawn(y, up[i])]).filter((_, i) => i % every === 0);
      this.list({ outline: corners.map((corner) => corner.map((place) => place.toFixed(6)).join(",")).join(";") });
    } else if (event.range) {
      const sorted = (axis, ends) => ends.map((place) => drawn(axis, place)).sort((a, b) => a - b);
      const [x0, x1] = sorted(x, event.range.x);
      const [y0, y1] = sorted(y, event.range.y);
      this.list({ x0, x1, y0, y1 });
    }
  }

  byNumbers(fields) {
    const given = {};
    for (const [name, axis] of [["x0", "x"], ["x1", "x"], ["y0", "y"], ["y1", "y"]]) {
      const text = fields[name].value.trim();
      if (text) given[name] = drawn(this.view[axis], Number(text));
    }
    this.list(given);
  }

  async list(outline, after) {
    let found;
    try {
      found = await ask(`/runs/${this.run}/rows.json?${this.query({ ...outline, after })}`);
    } catch (error) {
      this.found.replaceChildren(cell("p", error.message, { className: "wrong" }));
      return;
    }
    const { x, y } = this.view;
    if (after === undefined) {
      const caption = `${count.format(found.samples)} samples, ${count.format(found.kept)} of them kept`;
      this.found.replaceChildren(cell("h3", caption), this.table(x.column, y.column));
    }
    const lines = this.found.querySelector("tbody");
    lines.append(...found.rows.map((row) => this.line(row)));
    this.found.querySelector("button")?.remove();
    if (found.next !== null) {
      const more = cell("button", "More rows", { type: "button" });
      more.addEventListener("click", () => this.list(outline, found.next));
      this.found.append(more);
    }
  }

  table(...columns) {
    const place = document.createElement("div");
    place.className = "scroll";
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of ["row", "status", ...columns, "prompt", "response", "why"]) {
      head.append(cell("th", name, { scope: "col" }));
    }
    table.createTBody();
    place.append(table);
    return place;
  }

  line(found) {
    const line = document.createElement("tr");
    const link = cell("a", count.format(found.row), { href: `/runs/${this.run}/rows/${found.row}` });
    const head = Object.assign(document.createElement("th"), { scope: "row" });
    head.append(link);
    const excerpt = (text) => {
      const place = document.createElement("td");
      place.append(Object.assign(document.createElement("bdi"), { textContent: plain(text ?? "") }));
      place.className = "excerpt";
      return place;
    };
    line.append(head, cell("td", found.status), cell("td", short(found.x)), cell("td", short(found.y)));
    line.append(excerpt(found.prompt), excerpt(found.response), excerpt(found.reason));
    return line;
  }
}

/** The plane at `place`, which has the run's id: once what it begins with is there, a way to draw it. */
export const look = async (place) => {
  const plane = new Plane(place);
  const first = await plane.first();
  return () => plane.begin(...first);
};
