// How the rows of a run are spread over any of their columns, before and after.
import { plots } from "./plots.js";
import { drawAll } from "./report.js";
import { ask, fetched } from "./service.js";

/** Begin with the form at `place`. */
export const spreadOver = (place) => {
  const form = place.querySelector("form");
  const said = place.querySelector("#spread-said");
  const address = `/runs/${place.dataset.run}/spread`;
  const hint = said.textContent;

  /** The names to choose from are asked for once they may be wanted. */
  const offer = async () => {
    const { columns } = await ask(`${address}.json`);
    const named = Object.entries(columns).map(([value, label]) => Object.assign(document.createElement("option"), { value, label }));
    place.querySelector("datalist").replaceChildren(...named);
  };
  form.elements.column.addEventListener("focus", () => offer().catch(() => {}), { once: true }); // any name can be typed

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const column = form.elements.column.value.trim();
    said.textContent = "Counting …";
    try {
      const answer = await fetched(`${address}?${new URLSearchParams({ column })}`);
      const found = document.createElement("div");
      found.innerHTML = await answer.text(); // made by the service, which escapes whatever is of a row
      place.querySelector("#spread-found").replaceChildren(found);
      await plots();
      drawAll(found);
      said.textContent = hint;
    } catch (error) {
      said.textContent = error.message;
    }
  });
};
