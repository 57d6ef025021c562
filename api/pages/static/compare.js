// Two runs side by side: what they make of their samples, and a score of each against the other.
import { plots } from "./plots.js";
import { ask, fetched } from "./service.js";

const details = document.getElementById("details");
const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const count = new Intl.NumberFormat("en");

/** How many samples lie where, by their logarithm, as few cells hold most of them. */
const draw = (place, { x, y, samples }) => {
  const side = ({ column, scale }) => ({
    title: { text: column, font: { size: 12 } },
    type: scale,
    gridcolor: styled("line"),
    zeroline: false,
    automargin: true,
    exponentformat: "power",
  });
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: styled("dim"), size: 11, family: "system-ui, sans-serif" },
    margin: { l: 8, r: 8, t: 8, b: 36 },
    xaxis: side(x),
    yaxis: side(y),
  };
  const trace = {
    type: "heatmap",
    x: x.edges,
    y: y.edges,
    z: samples.map((row) => row.map((n) => (n ? Math.log10(n) : null))),
    customdata: samples,
    colorscale: [[0, styled("low")], [1, styled("high")]],
    zmin: 0,
    showscale: false,
    hoverongaps: false,
    hovertemplate: `${x.column} %{x:.3~g}, ${y.column} %{y:.3~g}<br>%{customdata:,} samples<extra></extra>`,
  };
  window.Plotly.react(place, [trace], layout, { displayModeBar: false, responsive: true });
};

const scores = (form) => {
  const place = document.getElementById("against");
  const said = document.getElementById("against-said");
  let asked = 0;
  let shown = null;
  const load = async () => {
    const mine = ++asked;
    try {
      const found = await ask(`${details.dataset.scores}?${new URLSearchParams(new FormData(form))}`);
      await plots();
      if (mine !== asked) return; // another was asked for meanwhile
      shown = found;
      draw(place, found);
      const all = found.samples.flat().reduce((sum, n) => sum + n, 0);
      said.textContent = `${count.format(all)} samples have both; the stronger the colour, the more of them.`;
    } catch (error) {
      said.textContent = error.message;
    }
  };
  form.addEventListener("change", load);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown && draw(place, shown));
  load();
};

try {
  const answer = await fetched(details.dataset.from);
  details.innerHTML = await answer.text(); // made by the service, which escapes whatever is of a row
  const form = document.getElementById("against-controls");
  if (form) scores(form);
} catch (error) {
  document.getElementById("details-said").textContent = error.message;
}
