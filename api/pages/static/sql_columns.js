// The tables that SQL can read and what their columns mean, beside the editor.
import { ask } from "./service.js";

const RESERVED = new Set(
  ("all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create default " +
    "deferrable desc describe distinct do else end except false fetch for foreign from group having in initially intersect " +
    "into lambda lateral leading limit not null offset on only or order pivot pivot_longer pivot_wider placing primary " +
    "qualify references returning select show some summarize symmetric table then to trailing true union unique unpivot " +
    "using variadic when where window with").split(" "),
);
const quoted = (name) => (/^[a-z_][a-z0-9_]*$/.test(name) && !RESERVED.has(name) ? name : `"${name.replaceAll('"', '""')}"`);
const made = (kind, text, more = {}) => Object.assign(document.createElement(kind), { textContent: text, ...more });

const inserting = (shown, name, insert) => {
  const button = made("button", shown, { type: "button", className: "name", title: `insert ${name}` });
  button.addEventListener("click", () => insert(name));
  return button;
};

/** A table, folded up: its name and columns, each with what it is searched by. */
const tableOf = (table, insert) => {
  const plain = table.schema_name === "main" ? [table.table] : [table.schema_name, table.table];
  const place = document.createElement("details");
  place.append(made("summary", plain.join(".")), inserting("insert its name", plain.map(quoted).join("."), insert));
  const list = document.createElement("dl");
  const columns = table.columns.map((column) => {
    const entry = document.createElement("div");
    const name = document.createElement("dt");
    name.append(inserting(column.name, quoted(column.name), insert), " ", made("small", column.type));
    entry.append(name, made("dd", column.description));
    list.append(entry);
    return { entry, text: `${column.name} ${column.description}`.toLowerCase() };
  });
  place.append(list);
  return { place, name: plain.join(".").toLowerCase(), columns };
};

/** Fill in the list; `insert` is told the name that was chosen, as SQL has it. */
export const listed = async (insert) => {
  const said = document.getElementById("columns-said");
  const field = document.getElementById("sought");
  let tables;
  try {
    tables = (await ask("/v1/sql/schema")).tables.map((table) => tableOf(table, insert));
  } catch (error) {
    said.textContent = error.message;
    return;
  }
  document.getElementById("columns").replaceChildren(...tables.map(({ place }) => place));
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const { place, name, columns } of tables) {
      const fitting = columns.filter((column) => {
        const fits = words.every((word) => name.includes(word) || column.text.includes(word));
        column.entry.hidden = !fits;
        return fits;
      });
      place.hidden = !fitting.length;
      place.open = Boolean(words.length) && found < 100;
      found += fitting.length;
    }
    said.textContent = `${found.toLocaleString("en")} columns. Choosing a name puts it into the statement.`;
  };
  field.addEventListener("input", filter);
  filter();
};
