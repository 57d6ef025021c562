// plotly, which is large and comes beside all else.

/** Once it is there. */
export const plots = () =>
  window.Plotly ? Promise.resolve() : new Promise((done) => document.getElementById("plotly").addEventListener("load", done));
