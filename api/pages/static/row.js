// A row's tokens in colours, by one of their numbers, in the place of the text that the page came with.
import { findNearest } from "./nearest.js";

const parts = JSON.parse(document.getElementById("parts").textContent);
const tokens = parts.filter((part) => part.numbers);
const form = document.getElementById("colours");
const short = (value) => (value === null ? "–" : Number(value.toPrecision(3)).toLocaleString("en"));

const said = ({ numbers, keep }) => {
  const named = Object.entries(numbers).filter(([, value]) => value !== null);
  const fate = keep === null ? [] : [keep ? "trained on" : "pruned"];
  return [...named.map(([name, value]) => `${name} ${short(value)}`), ...fate].join(", ");
};

/** From here on a number is high, so that one of them does not hide all others. */
const highest = (by) => {
  const values = tokens.map((token) => token.numbers[by]).filter((value) => value !== null).sort((a, b) => a - b);
  return values[Math.floor(0.98 * (values.length - 1))] || 1;
};

/** The parts of a turn as elements: tokens with their numbers, what is between them as it is. */
const made = (found) => {
  const text = document.createDocumentFragment();
  for (const part of found) {
    if (!part.numbers) {
      text.append(part.text);
      continue;
    }
    part.element = document.createElement(part.keep === false ? "del" : "span");
    part.element.textContent = part.text;
    part.element.title = said(part);
    part.element.className = "token";
    text.append(part.element);
  }
  return text;
};

const paint = () => {
  const by = form.elements.by.value;
  const high = highest(by);
  for (const { numbers, element } of tokens) {
    const depth = numbers[by] === null ? 0 : Math.min(1, Math.max(0, numbers[by] / high));
    element.style.setProperty("--depth", `${Math.round(45 * depth)}%`);
  }
  document.getElementById("scale").textContent = `from 0, without colour, to ${short(high)} and more`;
};

const numbers = document.createElement("output");
numbers.className = "numbers";
let current = null;

/** Tell the numbers of a token below its turn. */
const choose = (token, turn) => {
  current?.element.classList.remove("chosen");
  current = token;
  token.element.classList.add("chosen");
  token.element.scrollIntoView({ block: "nearest" });
  turn.after(numbers);
  numbers.textContent = `“${token.text}”: ${said(token)}`;
};

/** The tokens of a turn by touch, and one after another by the arrow keys. */
const choosable = (turn, found) => {
  const own = found.filter((part) => part.numbers);
  turn.addEventListener("click", ({ target }) => {
    const token = own.find(({ element }) => element === target);
    if (token) choose(token, turn);
  });
  turn.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const at = own.indexOf(current);
    const next = own[at < 0 ? 0 : Math.min(own.length - 1, Math.max(0, at + step))];
    if (next) choose(next, turn);
  });
};

const byTurn = new Map();
for (const part of parts) byTurn.has(part.turn) ? byTurn.get(part.turn).push(part) : byTurn.set(part.turn, [part]);
for (const [number, found] of byTurn) {
  const turn = document.querySelector(`[data-turn="${number}"]`);
  turn.replaceChildren(made(found));
  choosable(turn, found);
}
if (form) {
  form.hidden = false;
  form.addEventListener("change", paint);
  paint();
}
findNearest(document.getElementById("nearest"));
