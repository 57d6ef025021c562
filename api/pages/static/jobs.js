// Jobs that a page lists are followed until they end, and buttons do what their API address says.
import { follow } from "./progress.js";
import { ask } from "./service.js";

for (const button of document.querySelectorAll("button[data-path]")) {
  button.addEventListener("click", async () => {
    const wrong = document.getElementById("doing-wrong");
    wrong.hidden = true;
    button.disabled = true;
    try {
      const { method, path, body } = button.dataset;
      await ask(path, { method, body: body && JSON.parse(body) });
      location.reload();
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
      button.disabled = false;
    }
  });
}

const open = [...document.querySelectorAll("[data-job]")];
if (open.length) {
  Promise.all(open.map((place) => follow(place.dataset.job, place))).then(() => location.reload());
}
