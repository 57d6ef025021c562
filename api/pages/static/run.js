// A run's page: its job while it goes on, then the samples to look into, the report and sliders.
import { follow } from "./progress.js";
import { look } from "./plane.js";
import { plots } from "./plots.js";
import { drawAll } from "./report.js";
import { spreadOver } from "./spread.js";
import { tryRatios } from "./try.js";

const details = document.getElementById("details");
const ratios = document.getElementById("try");
const prepare = ratios && tryRatios(ratios);
const open = document.querySelector("[data-job]");

const fill = async () => {
  const answer = await fetch(details.dataset.from);
  const html = await answer.text();
  if (!answer.ok) {
    document.getElementById("details-said").textContent = "The report cannot be made now: load the page again.";
    return;
  }
  details.innerHTML = html; // made by the service, which escapes whatever is of a row
  await plots();
  drawAll(details);
};

/** The plane first, as it is at the top; then the report; and the sliders when both have what they asked for. */
const show = async () => {
  const plane = await look(document.getElementById("looking")).catch(() => null); // nothing measured, no plane
  const filled = fill();
  if (plane) {
    await plots();
    plane();
  }
  await filled;
  prepare?.();
};

if (open) follow(open.dataset.job, open).then(() => location.reload());
if (details) {
  show();
  spreadOver(document.getElementById("spread"));
}
