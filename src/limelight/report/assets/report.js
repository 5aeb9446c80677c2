// The state of the page, which the address stores, and its keys.

const data = JSON.parse(document.getElementById("data").textContent);
const DEFAULTS = { kind: "", find: "", example: -1, token: -1, pinned: false, map: 0, text: 0, head: 0, row: 0, column: 0, held: false, measure: "entropy" };
const state = { ...DEFAULTS };
// Which view the keys move: the texts or the maps, whichever was used last.
let active = data.texts.length ? "texts" : "maps";

function readAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const [name, initial] of Object.entries(DEFAULTS)) {
    const value = parameters.get(name);
    if (value === null) state[name] = initial;
    else if (typeof initial === "number") state[name] = Number.parseInt(value, 10) || 0;
    else state[name] = typeof initial === "boolean" ? value === "1" : value;
  }
  if (state.measure !== "distance") state.measure = "entropy";
  const text = data.texts[state.example];
  if (!text || !(state.token >= 0 && state.token < text.pieces.length)) Object.assign(state, { example: -1, token: -1, pinned: false });
}

function writeAddress() {
  const parameters = new URLSearchParams();
  for (const [name, initial] of Object.entries(DEFAULTS)) {
    if (state[name] !== initial) parameters.set(name, typeof initial === "boolean" ? "1" : String(state[name]));
  }
  // A frame in a notebook has no address of its own to keep it in.
  try {
    history.replaceState(null, "", `#${parameters}`);
  } catch { /* the state lasts as long as the page */ }
}

function changed(view = "texts") {
  active = view;
  apply();
  writeAddress();
}

function apply() {
  texts?.apply();
  viewer?.apply();
}

readAddress();
for (const part of document.querySelectorAll(".live")) part.hidden = false;
const texts = startTexts(data.texts, state, changed);
const viewer = startViewer(data.maps, state, changed);
apply();

addEventListener("hashchange", () => {
  if (location.hash.includes("=") || location.hash.length < 2) {
    readAddress();
    apply();
  }
});

// A link to a part of the page must not cost the state that the address keeps.
for (const link of document.querySelectorAll('nav a[href^="#"]')) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById(link.hash.slice(1)).scrollIntoView();
  });
}

for (const view of ["texts", "maps"]) {
  const root = document.getElementById(view);
  for (const kind of ["pointerdown", "focusin"]) root?.addEventListener(kind, () => { active = view; });
}

const command = document.getElementById("command");
if (command && navigator.clipboard) {
  const copy = make("button", { class: "plain copy", onclick: async () => {
    await navigator.clipboard.writeText(command.textContent);
    copy.textContent = "Copied";
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

const KEYS = {
  "/": () => texts?.search.focus(),
  "?": () => (help.open ? help.close() : help.showModal()),
  "[": () => viewer?.moveHead(-1, 0),
  "]": () => viewer?.moveHead(1, 0),
  "{": () => viewer?.moveHead(0, -1),
  "}": () => viewer?.moveHead(0, 1),
  s: () => {
    if (active === "maps" && viewer) viewer.save();
    else if (texts?.current()) saveFigure(texts.current().figure(), `text-${state.example + 1}`);
  },
};

addEventListener("keydown", (event) => {
  const target = event.target instanceof Element ? event.target : document.body;
  const typing = target.matches("input, select, textarea");
  if (typing && event.key === "Escape") target.blur();
  // AltGr reports itself as Ctrl and Alt on some systems, and brackets need it on many keyboards.
  const command = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
  if (typing || command || (help.open && event.key !== "?")) return;
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
    return;
  }
  moveToken(event, target);
});

function moveToken(event, target) {
  const across = { ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0, down = { ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0;
  const inside = target.closest(".matrix, .reading"), free = target === document.body;
  if (!inside && !free && event.key !== "Enter") return;
  // Outside a view up and down are the page's own: they scroll.
  if (!across && !(down && inside) && !(event.key === "Enter" && (inside || free))) return;
  const view = active === "maps" ? viewer : target.closest("article") ? cardOf(target) : texts?.current();
  if (!view) return;
  event.preventDefault();
  if (event.key === "Enter") view.pin();
  else if (active === "maps") view.move(across, down);
  else view.move(across || down);
}

function cardOf(target) {
  return texts.at(Number(target.closest("article").dataset.example));
}
