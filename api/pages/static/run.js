// A run's page: its job while it goes on, then the report and the samples to look into.
import { follow } from "./progress.js";
import { look } from "./plane.js";
import { drawAll } from "./report.js";
import { tryRatios } from "./try.js";

const details = document.getElementById("details");

const fill = async () => {
  const answer = await fetch(details.dataset.from);
  const html = await answer.text();
  if (!answer.ok) {
    document.getElementById("details-said").textContent = "The report cannot be made now: load the page again.";
    return;
  }
  details.innerHTML = html; // made by the service, which escapes whatever is of a row
  drawAll(details);
};

const open = document.querySelector("[data-job]");
if (open) follow(open.dataset.job, open).then(() => location.reload());
if (details) {
  fill();
  look(document.getElementById("looking"));
}

const ratios = document.getElementById("try");
if (ratios) tryRatios(ratios);
