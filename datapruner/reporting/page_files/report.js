// Draws the plots of a report from its block of data, in the colours of the page's style sheet.

/** Draw every plot inside `root`, which has the block; again where the colours change. */
export const drawAll = (root) => {
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  };
  const widths = (edges) => edges.slice(1).map((edge, i) => edge - edges[i]);
  const axis = (colour, scale, title) => ({
    type: scale,
    title: title ? { text: title, font: { size: 12 } } : undefined,
    gridcolor: colour("line"),
    linecolor: colour("line"),
    zeroline: false,
    automargin: true,
    exponentformat: "power",
    nticks: 6,
  });
  const layout = (colour, more) => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("dim"), size: 11, family: "system-ui, sans-serif" },
    margin: { l: 8, r: 8, t: 8, b: 8 },
    showlegend: false,
    hovermode: "closest",
    ...more,
  });
  const lines = (colour, thresholds, direction) =>
    Object.entries(thresholds).map(([, at]) => ({
      type: "line",
      [`${direction}0`]: at,
      [`${direction}1`]: at,
      [direction === "x" ? "y0" : "x0"]: 0,
      [direction === "x" ? "y1" : "x1"]: 1,
      [direction === "x" ? "yref" : "xref"]: "paper",
      line: { color: colour("cut"), width: 1, dash: "dot" },
    }));

  // Bars of two histograms over each other; on a log scale a bar's width is that of its bin.
  const bars = (colour, found) => {
    const bar = (counts, name, shade) => ({
      type: "bar",
      x: found.edges.slice(0, -1),
      width: widths(found.edges),
      offset: 0,
      y: counts,
      name,
      marker: { color: colour(shade), line: { width: 0 } },
      customdata: found.edges.slice(1),
      hovertemplate: `%{x:.4~g} to %{customdata:.4~g}: %{y:,} ${name}<extra></extra>`,
    });
    const traces = [bar(found.before, found.after ? "before" : "rows", found.after ? "before" : "after")];
    if (found.after) traces.push(bar(found.after, "after", "after"));
    return [
      traces,
      layout(colour, {
        barmode: "overlay",
        bargap: 0,
        showlegend: Boolean(found.after),
        legend: { orientation: "h", x: 1, xanchor: "right", y: 1, yanchor: "bottom", font: { size: 10 } },
        xaxis: axis(colour, found.scale),
        yaxis: axis(colour, "linear", "rows"),
        shapes: lines(colour, found.thresholds, "x"),
      }),
    ];
  };

  const heat = (colour, plane, z, name, format) => {
    const by = (letter) => Object.fromEntries(
      Object.entries(plane.thresholds).filter(([cut]) => cut.startsWith(letter)),
    );
    return [
      [{
        type: "heatmap",
        x: plane.x_edges,
        y: plane.y_edges,
        z,
        colorscale: [[0, colour("low")], [1, colour("high")]],
        hoverongaps: false,
        colorbar: { thickness: 8, outlinewidth: 0, len: 1, tickfont: { size: 10 } },
        customdata: plane.samples,
        hovertemplate: `${plane.x} %{x:.3f}, ${plane.y} %{y:.3~g}<br>${name} ${format}, of %{customdata:,}<extra></extra>`,
      }],
      layout(colour, {
        xaxis: axis(colour, plane.x_scale, plane.x),
        yaxis: axis(colour, plane.y_scale, plane.y),
        shapes: [...lines(colour, by(plane.x), "x"), ...lines(colour, by(plane.y), "y")],
      }),
    ];
  };

  const kinds = {
    distribution: (colour, at) => bars(colour, data.distributions[Number(at.dataset.index)]),
    // Here "after" is no part of "before", so that each is seen through the other.
    rewriting: (colour) => {
      const [traces, made] = bars(colour, data.rewriting.tokens);
      traces[1].opacity = 0.6;
      return [traces, made];
    },
    // Counts by their logarithm, as few cells hold most of the samples.
    plane: (colour) => {
      const z = data.plane.samples.map((row) => row.map((n) => (n ? Math.log10(n) : null)));
      const [traces, made] = heat(colour, data.plane, z, "samples", "%{customdata:,}");
      const most = Math.max(1, ...data.plane.samples.flat());
      const ticks = Array.from({ length: Math.floor(Math.log10(most)) + 1 }, (_, power) => 10 ** power);
      if (most > 2 * ticks.at(-1)) ticks.push(most);
      const shown = { tickvals: ticks.map(Math.log10), ticktext: ticks.map((n) => n.toLocaleString("en")) };
      Object.assign(traces[0].colorbar, shown);
      traces[0].zmin = 0;
      return [traces, made];
    },
    kept: (colour) => {
      const z = data.plane.kept.map((row, j) =>
        row.map((kept, i) => (data.plane.samples[j][i] ? kept / data.plane.samples[j][i] : null)));
      const [traces, made] = heat(colour, data.plane, z, "kept", "%{z:.0%}");
      Object.assign(traces[0], { zmin: 0, zmax: 1 });
      Object.assign(traces[0].colorbar, { tickformat: ".0%" });
      return [traces, made];
    },
    length: (colour) => {
      const groups = data.by_length.groups;
      return [
        [{
          type: "bar",
          x: groups.map(({ low, high }) => (low === high ? `${low}` : `${low}–${high}`)),
          y: groups.map((group) => group.kept / group.rows),
          marker: { color: colour("after") },
          customdata: groups.map((group) => group.rows),
          hovertemplate: "%{x}: %{y:.1%} of %{customdata:,} rows<extra></extra>",
        }],
        layout(colour, {
          xaxis: { ...axis(colour, "category"), nticks: 12 },
          yaxis: { ...axis(colour, "linear"), tickformat: ".0%", rangemode: "tozero" },
        }),
      ];
    },
  };

  const draw = () => {
    const colour = colours();
    for (const at of root.querySelectorAll("[data-plot]")) {
      const [traces, made] = kinds[at.dataset.plot](colour, at);
      window.Plotly.react(at, traces, made, { displayModeBar: false, responsive: true });
    }
  };
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
};

if (document.getElementById("data")) drawAll(document);
