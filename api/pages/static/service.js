// How pages talk to the service: with the browser's cookie, and with the page's word where something changes.
const word = document.querySelector('meta[name="word"]')?.content ?? "";

/** What went wrong, as the service says it. */
export class Problem extends Error {
  constructor(about) {
    super([about.detail ?? "the service does not answer", about.remedy].filter(Boolean).join(" – "));
    this.about = about;
  }
}

const read = (text, status) => {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: status ? `the service answered with ${status}` : undefined };
  }
};

/** The response to a request, which `signal` may abort. Raises Problem. */
export const fetched = async (path, { method = "GET", body, signal } = {}) => {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: { "X-CSRF-Token": word, ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body && JSON.stringify(body),
      signal,
    });
  } catch {
    throw new Problem({});
  }
  if (!answer.ok) throw new Problem(read(await answer.text(), answer.status));
  return answer;
};

/** What a request is answered with, as an object. Raises Problem. */
export const ask = async (path, more) => {
  const answer = await fetched(path, more);
  return read(await answer.text(), answer.status);
};

/** Send a form with a file, telling how much of it has gone, from 0 to 1. Raises Problem. */
export const send = (path, form, told) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", (event) => event.total && told(event.loaded / event.total));
    request.addEventListener("load", () => {
      const found = read(request.responseText, request.status);
      if (request.status < 300) resolve(found);
      else reject(new Problem(found));
    });
    request.addEventListener("error", () => reject(new Problem({})));
    request.open("POST", path);
    request.setRequestHeader("X-CSRF-Token", word);
    request.send(form);
  });

const REOPENED_AFTER = 5000; // milliseconds

/** Tell each change of a job, and resolve with it once it has ended. */
export const watch = (job, told) =>
  new Promise((resolve) => {
    const open = () => {
      const events = new EventSource(`/v1/jobs/${encodeURIComponent(job)}/events`);
      events.addEventListener("job", (event) => {
        const now = JSON.parse(event.data);
        told(now);
        if (now.finished_at) {
          events.close();
          resolve(now);
        }
      });
      // A stream that ends is opened again by the browser, but not after an error page, such as a proxy's.
      events.addEventListener("error", () => {
        if (events.readyState === EventSource.CLOSED) setTimeout(open, REOPENED_AFTER);
      });
    };
    open();
  });
