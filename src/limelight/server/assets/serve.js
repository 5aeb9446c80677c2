// The page of `limelight serve`: run a text, change heads and words, walk over the weights.
import { createMatrix } from "./matrix.js";

const element = (id) => document.getElementById(id);
const MAX_WORDS = 3000;
// A text is read after a pause of typing; a longer one takes a while, and waits for the button.
const PAUSE = 500, MAX_READ_AT_ONCE = 5000;
// What a reload must bring back.
const state = { text: "", silenced: [], forbidden: [], map: null, head: 0, ...JSON.parse(sessionStorage.getItem("limelight") ?? "{}") };
const save = () => {
  try { sessionStorage.setItem("limelight", JSON.stringify(state)); } catch { /* The text is too long to be kept. */ }
};

let original = null, current = null, number = 0;

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => ({}));
  throw new Error(document.error ?? `The server answered with status ${response.status}.`);
}

async function post(document) {
  const headers = { "content-type": "application/json" };
  return (await request("run", { method: "POST", headers, body: JSON.stringify(document) })).json();
}

function report(message, isError = false) {
  element("status").textContent = message;
  element("status").classList.toggle("error", isError);
}

async function run({ isNew }) {
  const turn = ++number;
  const hasChanges = state.silenced.length > 0 || state.forbidden.length > 0;
  report("Reading …");
  try {
    if (isNew || original === null) original = await post({ text: state.text });
    const changed = hasChanges ? await post({ text: state.text, silenced: state.silenced, forbidden: state.forbidden }) : original;
    if (turn !== number) return;
    current = changed;
    report("");
    show();
  } catch (error) {
    if (turn === number) report(error.message, true);
  }
  save();
}

function show() {
  element("results").hidden = false;
  element("reset").hidden = state.silenced.length + state.forbidden.length === 0;
  showPrediction();
  fillMaps();
  showAttention();
}

function showPrediction() {
  const rows = [];
  if (current.probabilities) {
    const names = Object.keys(current.probabilities).sort((a, b) => current.probabilities[b] - current.probabilities[a]);
    for (const name of names.slice(0, 10)) {
      const value = current.probabilities[name], before = original.probabilities[name];
      const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, value });
      meter.setAttribute("aria-label", name);
      meter.style.setProperty("--share", `${100 * value}%`);
      const change = current === original ? "" : ` (${signed(100 * (value - before))} points)`;
      rows.push(row(text("span", name, "name"), meter, text("span", `${(100 * value).toFixed(1)} %${change}`)));
    }
    if (names.length > 10) rows.push(text("small", `${names.length - 10} classes more, each less likely.`));
  } else {
    rows.push(text("p", String(current.prediction), "text"));
    if (current !== original) rows.push(text("small", `Without the changes: ${original.prediction}`));
  }
  element("prediction").replaceChildren(...rows);
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

function text(tag, content, className = "") {
  return Object.assign(document.createElement(tag), { textContent: content, className });
}

function row(...children) {
  const line = document.createElement("div");
  line.className = "row";
  line.append(...children);
  return line;
}

function fillMaps() {
  const maps = current.maps;
  if (!maps.some((each) => each.key === state.map)) state.map = maps[maps.length - 1].key;
  fill(element("map"), maps.map((each) => [each.key, `${each.key} (${each.layer || "attention"})`]), state.map);
  const heads = selected().shape.at(-3);
  state.head = Math.min(state.head, heads - 1);
  fill(element("head"), Array.from({ length: heads }, (_, head) => [head, String(head + 1)]), state.head);
}

function fill(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, label]) => new Option(label, value, false, value === chosen)));
  select.disabled = entries.length < 2;
}

const selected = () => current.maps.find((each) => each.key === state.map);
const isSilenced = () => state.silenced.some(([key, head]) => key === state.map && head === state.head);

function showAttention() {
  const map = selected(), silence = element("silence");
  silence.setAttribute("aria-pressed", String(isSilenced()));
  silence.textContent = isSilenced() ? "Let this head speak" : "Silence this head";
  // Documents have one list of words for each sentence.
  const tokens = (map.tokens ?? []).flat();
  const amounts = map.weights ? received(map.weights, state.head) : null;
  const largest = amounts ? Math.max(...amounts, 1e-12) : 1;
  const words = tokens.slice(0, MAX_WORDS).map((token, position) => {
    const button = text("button", token);
    button.type = "button";
    const isForbidden = state.forbidden.includes(position);
    button.setAttribute("aria-pressed", String(isForbidden));
    if (amounts && position < amounts.length) {
      const share = amounts[position] / largest;
      button.style.setProperty("--amount", `${Math.round(100 * share)}%`);
      button.classList.toggle("strong", share > 0.5);
      button.title = `${amounts[position].toFixed(4)}`;
    }
    button.addEventListener("click", () => toggleWord(position));
    return button;
  });
  element("words").replaceChildren(...words);
  const hidden = tokens.length - words.length;
  element("hint").textContent = [
    current.cut ? "The text is longer than the model reads: its end is left out." : "",
    map.shape.at(-2) > 1 ? "A word is as bright as the attention that it receives on average." : "A word is as bright as its weight.",
    amounts ? describeSpread(amounts.slice(0, tokens.length)) : "",
    "Choose a word to forbid it.",
    amounts ? "" : "The map is too large to be shown whole: see the squares below.",
    hidden > 0 ? `${hidden} words more are not listed.` : "",
  ].filter(Boolean).join(" ");
  const isSquare = map.shape.length === 4 && map.shape.at(-2) > 1;
  element("matrix").hidden = !isSquare;
  if (isSquare) matrix.show(current.run, map, state.head);
}

// Brightness is relative: nearly equal weights would look as certain as others.
function describeSpread(amounts) {
  const [low, high] = [Math.min(...amounts), Math.max(...amounts)];
  return `From ${low.toFixed(3)} to ${high.toFixed(3)}; equal weights would be ${(1 / amounts.length).toFixed(3)}.`;
}

// The mean weight that each key receives from the queries; documents have one more axis, of sentences.
function received(weights, head) {
  if (Array.isArray(weights[0][0][0])) return weights.flatMap((sentence) => received(sentence, head));
  const queries = weights[head].filter((each) => each.some((weight) => weight > 0));
  return weights[head][0].map((_, key) => queries.reduce((sum, query) => sum + query[key], 0) / Math.max(1, queries.length));
}

function toggleWord(position) {
  state.forbidden = state.forbidden.includes(position)
    ? state.forbidden.filter((each) => each !== position)
    : [...state.forbidden, position];
  run({ isNew: false });
}

let pause = null, running = null;

function readText() {
  clearTimeout(pause);
  Object.assign(state, { text: element("text").value, silenced: [], forbidden: [] });
  running = run({ isNew: true });
}

async function readAfterPause() {
  // One run at a time: what was typed meanwhile is read next.
  await running;
  const text = element("text").value;
  if (text.trim() && text !== state.text && text.length <= MAX_READ_AT_ONCE) readText();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  readText();
});
element("text").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(readAfterPause, PAUSE);
});
element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("form").requestSubmit();
});
element("reset").addEventListener("click", () => {
  Object.assign(state, { silenced: [], forbidden: [] });
  run({ isNew: false });
});
element("silence").addEventListener("click", () => {
  state.silenced = isSilenced()
    ? state.silenced.filter(([key, head]) => key !== state.map || head !== state.head)
    : [...state.silenced, [state.map, state.head]];
  run({ isNew: false });
});
element("map").addEventListener("change", () => { Object.assign(state, { map: element("map").value, head: 0 }); fillMaps(); showAttention(); save(); });
element("head").addEventListener("change", () => { state.head = Number(element("head").value); showAttention(); save(); });

const matrix = createMatrix({
  canvas: element("canvas"), caption: element("caption"), reading: element("reading"), request,
});

// Before anything is awaited: someone may be typing already.
element("text").value = state.text;
if (state.text) run({ isNew: true });
request("model").then((response) => response.json()).then((model) => {
  element("model").textContent = model.estimator + (model.classes ? `: ${model.classes.length} classes` : "");
}).catch((error) => report(error.message, true));
