// How much a run would keep, said while it is put together: by cached signals, or an estimate that says it is one.
import { ask } from "./service.js";
import { words } from "./try.js";

const count = new Intl.NumberFormat("en");
const PAUSE = 200; // milliseconds without a change
const LONG = 600; // after which it is said that it is being counted

const said = ({ samples, found, about, why }) => {
  if (found) return `keeps exactly ${words(found)}`;
  return `${about === null ? "not known yet" : `about ${count.format(about)} of ${count.format(samples)} samples`}: ${why}`;
};

/** A function that says at `place`, some time after the last call, what the run of `body()` would keep. */
export const foresees = (place, body) => {
  let due;
  let asking;
  const work = async () => {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    const long = setTimeout(() => (place.textContent = "counting …"), LONG);
    try {
      const found = await ask("/foreseen.json", { method: "POST", body: body(), signal });
      if (!signal.aborted) place.textContent = said(found);
    } catch (error) {
      if (!signal.aborted) place.textContent = error.message;
    } finally {
      clearTimeout(long);
    }
  };
  return () => {
    clearTimeout(due);
    due = setTimeout(work, PAUSE);
  };
};
