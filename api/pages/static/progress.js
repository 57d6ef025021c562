// How far jobs are, in words and as a bar, wherever a page has a place for it.
import { watch } from "./service.js";

const count = new Intl.NumberFormat("en");

/** A job in words. */
export const said = (job) => {
  if (job.finished_at) return job.error ? job.error.detail : job.state;
  const now = job.progress;
  if (!now) return job.state;
  const far = now.total ? `${count.format(now.done)} of ${count.format(now.total)} ${now.unit}` : "";
  const left = now.eta_seconds ? `${count.format(Math.ceil(now.eta_seconds))} s left` : "";
  return [now.stage, far, left].filter(Boolean).join(", ");
};

/** Show a job in `place` until it ends. */
export const follow = (job, place) => {
  const words = place.querySelector("[data-said]");
  const bar = place.querySelector("progress");
  return watch(job, (now) => {
    words.textContent = said(now);
    if (now.progress?.total) {
      bar.max = now.progress.total;
      bar.value = now.progress.done;
    } else {
      bar.removeAttribute("value");
    }
    if (now.finished_at) bar.value = bar.max;
  });
};
