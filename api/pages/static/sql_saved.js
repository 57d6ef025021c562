// Statements that the project keeps by name.
import { ask } from "./service.js";

const every = async () => {
  const found = [];
  let next = null;
  do {
    const page = await ask(`/v1/sql/saved?limit=200${next ? `&cursor=${encodeURIComponent(next)}` : ""}`);
    found.push(...page.items);
    next = page.next;
  } while (next);
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
};

/** Save what is in the editor, and open and delete what is saved. */
export const keeping = (editor) => {
  const form = document.getElementById("saving");
  const said = document.getElementById("saving-said");
  const forget = document.getElementById("forget");
  const { saved, name } = form.elements;
  let known = [];

  const refresh = async (chosen = "") => {
    known = await every();
    saved.replaceChildren(new Option("none", ""), ...known.map((each) => new Option(each.name, each.name, false, each.name === chosen)));
    forget.disabled = !saved.value;
  };
  const doing = async (act) => {
    try {
      said.textContent = (await act()) ?? "";
    } catch (error) {
      said.textContent = error.message;
    }
  };

  saved.addEventListener("change", () => {
    const found = known.find((each) => each.name === saved.value);
    forget.disabled = !found;
    name.value = saved.value;
    if (found) editor.value = found.sql;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    doing(async () => {
      const kept = name.value;
      await ask(`/v1/sql/saved/${encodeURIComponent(kept)}`, { method: "PUT", body: { sql: editor.value } });
      await refresh(kept);
      return `${kept} is saved.`;
    });
  });
  forget.addEventListener("click", () =>
    doing(async () => {
      const gone = saved.value;
      await ask(`/v1/sql/saved/${encodeURIComponent(gone)}`, { method: "DELETE" });
      await refresh();
      return `${gone} is deleted.`;
    }),
  );
  doing(() => refresh());
};
