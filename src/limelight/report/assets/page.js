// The state of the page, which the address keeps, its folds and its keys.
import { make } from "./elements.js";
import { saveFigure } from "./saving.js";
import { PAGE, readState, VIEWER, writeState } from "./state.js";
import { startTexts } from "./texts.js";
import { startViewer } from "./viewer.js";

const data = JSON.parse(document.getElementById("data").textContent);
const folds = [...document.querySelectorAll("details.fold")], foldedAtFirst = folds.filter((fold) => !fold.open).map((fold) => fold.id);
const places = [...document.querySelectorAll("[data-viewer]")].filter((place) => data.views[place.dataset.viewer]);
const prefixOf = (index) => (index ? `${places[index].dataset.viewer}.` : "");
const state = { ...PAGE }, selections = places.map(() => ({ ...VIEWER }));
// Which view the keys move: the texts (null) or a viewer, whichever was used last.
let active = null;

function readAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, readState(parameters, PAGE));
  selections.forEach((selection, index) => Object.assign(selection, readState(parameters, VIEWER, prefixOf(index))));
  const text = data.texts[state.example];
  if (!text || !(state.token >= 0 && state.token < text.pieces.length)) Object.assign(state, { example: -1, token: -1, pinned: false });
  const open = state.open.split(" ");
  for (const fold of folds) fold.open = !foldedAtFirst.includes(fold.id) || open.includes(fold.id) || state.open === "all" || fold.open;
}

function writeAddress() {
  const parameters = new URLSearchParams();
  writeState(parameters, state, PAGE);
  selections.forEach((selection, index) => writeState(parameters, selection, VIEWER, prefixOf(index)));
  // A frame in a notebook has no address of its own to keep it in.
  try {
    history.replaceState(null, "", `#${parameters}`);
  } catch { /* the state lasts as long as the page */ }
}

readAddress();
for (const part of document.querySelectorAll(".live")) part.hidden = false;
const texts = startTexts(data.texts, state, () => {
  active = null;
  texts.apply();
  writeAddress();
});
const viewers = places.map((place, index) => {
  const viewer = startViewer(place, data.views[place.dataset.viewer], selections[index], () => {
    active = viewer;
    viewer.apply();
    writeAddress();
  }, prefixOf(index));
  for (const kind of ["pointerdown", "focusin"]) place.addEventListener(kind, () => { active = viewer; });
  return viewer;
});
active = texts ? null : viewers[0] ?? null;
document.getElementById("texts")?.addEventListener("focusin", () => { active = null; });

function apply() {
  texts?.apply();
  for (const viewer of viewers) viewer.apply();
}
apply();

addEventListener("hashchange", () => {
  if (location.hash.includes("=") || location.hash.length < 2) {
    readAddress();
    apply();
  }
});

for (const fold of folds) {
  fold.addEventListener("toggle", () => {
    if (!foldedAtFirst.includes(fold.id)) return;
    state.open = state.open === "all" && fold.open ? "all" : folds.filter((other) => other.open && foldedAtFirst.includes(other.id)).map((other) => other.id).join(" ");
    writeAddress();
  });
}
// On paper nothing can be unfolded.
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });

// A link to a part of the page opens it, and must not cost the state that the address keeps.
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", (event) => {
    const part = document.getElementById(link.hash.slice(1)), fold = part?.closest("details.fold") ?? part?.querySelector("details.fold");
    if (!part) return;
    event.preventDefault();
    if (fold) fold.open = true;
    part.scrollIntoView();
  });
}

const command = document.getElementById("command");
if (command && navigator.clipboard) {
  const copy = make("button", { class: "plain copy", type: "button", onclick: async () => {
    // A frame in a notebook may not use the clipboard.
    copy.textContent = await navigator.clipboard.writeText(command.textContent).then(() => "Copied", () => "Select it and copy");
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  } }, "Copy");
  command.parentElement.before(copy);
}

for (const part of document.querySelectorAll(".all-classes")) {
  const rows = [...part.querySelectorAll("tbody tr")];
  part.querySelector("input").addEventListener("input", (event) => {
    const find = event.target.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.firstElementChild.textContent.toLowerCase().includes(find);
  });
}

const help = document.getElementById("help");
document.getElementById("help-button")?.addEventListener("click", () => help.showModal());

// The viewer that keys change, also while the texts are in use: heads, layers and zoom are its own.
const viewer = () => active ?? viewers[0];

const KEYS = {
  "/": () => {
    const { search } = active ?? texts ?? {}, fold = search?.closest("details.fold");
    if (fold) fold.open = true;
    search?.focus();
  },
  "?": () => (help.open ? help.close() : help.showModal()),
  "[": () => viewer()?.moveHead(-1, 0),
  "]": () => viewer()?.moveHead(1, 0),
  "{": () => viewer()?.moveHead(0, -1),
  "}": () => viewer()?.moveHead(0, 1),
  "+": () => viewer()?.zoom(2),
  "-": () => viewer()?.zoom(0.5),
  s: () => {
    if (active) active.save();
    else if (texts?.current()) saveFigure(texts.current().figure(), `text-${state.example + 1}`);
  },
};

addEventListener("keydown", (event) => {
  const target = event.target instanceof Element ? event.target : document.body;
  const typing = target.matches("input, select, textarea");
  if (typing && event.key === "Escape") target.blur();
  // AltGr reports itself as Ctrl and Alt on some systems, and brackets need it on many keyboards.
  const isCommand = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
  if (typing || isCommand || (help.open && event.key !== "?")) return;
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
    return;
  }
  moveToken(event, target);
});

function moveToken(event, target) {
  const across = { ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0, down = { ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0;
  const inside = target.closest(".matrix, .reading, .figure"), free = target === document.body;
  if (!inside && !free && event.key !== "Enter") return;
  // Outside a view up and down are the page's own: they scroll.
  if (!across && !(down && inside) && !(event.key === "Enter" && (inside || free))) return;
  const card = target.closest("article") ? texts.at(Number(target.closest("article").dataset.example)) : null;
  const moved = card ?? active ?? texts?.current();
  if (!moved) return;
  event.preventDefault();
  if (event.key === "Enter") moved.pin();
  else if (moved === active) active.move(across, down);
  else moved.move(across || down);
}
