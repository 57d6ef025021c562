// Sliders for another keep ratio: what would be kept, as the service works it out, and the run of it.
import { said as progress } from "./progress.js";
import { ask, watch } from "./service.js";

const count = new Intl.NumberFormat("en");
const part = (some, all) => `${count.format(some)} of ${count.format(all)} (${((100 * some) / (all || 1)).toFixed(1)} %)`;

/** What would be kept, in words. */
export const words = (found) => {
  const said = [`${part(found.kept, found.samples)} samples, ${part(found.kept_tokens, found.tokens)} response tokens`];
  const quadrants = Object.entries(found.quadrants).filter(([, kept]) => kept);
  if (quadrants.length) said.push(`of ${quadrants.map(([name, kept]) => `${name} ${count.format(kept)}`).join(", ")}`);
  return [said.join("; "), ...found.warnings].join(". ");
};

/** Begin with the sliders at `place`; gives a way to have the service read what they need before they move. */
export const tryRatios = (place) => {
  const form = place.querySelector("form");
  const said = place.querySelector("#try-said");
  const button = form.querySelector("button");
  const settings = JSON.parse(place.dataset.settings);
  const fields = [...form.querySelectorAll("input")];
  const shown = () => fields.forEach((field) => (field.nextElementSibling.value = `${field.value} %`));
  const values = () => Object.fromEntries(fields.map((field) => [field.name, field.value / 100]));
  let asked = 0;
  let busy = false;

  const work = async () => {
    if (busy) return; // the one at work asks again when it has ended
    busy = true;
    for (let at = -1; at !== asked; ) {
      at = asked;
      try {
        const found = await ask(`/runs/${place.dataset.run}/tried.json?${new URLSearchParams(values())}`);
        said.textContent = words(found);
        if (button) button.hidden = asked === 0; // that run is there already
      } catch (error) {
        said.textContent = error.message;
        if (button) button.hidden = true;
      }
    }
    busy = false;
  };

  form.addEventListener("input", () => {
    asked += 1;
    shown();
    work();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { share, token_keep } = values();
    const options = token_keep === undefined ? settings.options : { ...settings.options, token_keep };
    button.disabled = true;
    try {
      const job = await ask("/v1/runs", { method: "POST", body: { ...settings, options, keep: { share } } });
      const ended = await watch(job.id, (now) => (said.textContent = progress(now)));
      if (ended.state !== "succeeded") throw new Error(progress(ended));
      location.assign(`/runs/${ended.result.run_id}`);
    } catch (error) {
      said.textContent = error.message;
      button.disabled = false;
    }
  });
  shown();
  return () => asked || work();
};
