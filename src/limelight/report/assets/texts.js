// The highlighted texts: filtered by kind, searched, and one token at a time described in words.
import { make, ranking } from "./elements.js";
import { stripFigure } from "./saving.js";
import { capital, clamp, describe, percent, shade, strongest } from "./words.js";

export function startTexts(texts, state, changed) {
  const root = document.getElementById("texts");
  if (!root || !texts.length) return null;
  const kinds = [...new Set(texts.map((text) => text.kind).filter(Boolean))];
  const chips = ["", ...kinds].map((kind) => make("button", { class: "chip", type: "button", "data-kind": kind, onclick: () => choose({ kind }) },
    capital(kind || "all"), make("span", { class: "count" }, String(kind ? texts.filter((text) => text.kind === kind).length : texts.length))));
  const search = make("input", { type: "search", id: "find", placeholder: "Search", "aria-label": "Search the examples",
    autocomplete: "off", spellcheck: "false", oninput: () => choose({ find: search.value }) });
  const shown = make("p", { class: "note", role: "status", id: "found" });
  const cards = texts.map((text, index) => textCard(text, index, kinds, state, changed));
  root.append(...[
    make("div", { class: "controls" }, make("div", { class: "chips", role: "group", "aria-label": "Kind" }, chips), search, shown),
    texts.every((text) => text.series) ? null : legend(), make("div", { class: "texts" }, cards.map((card) => card.node))].filter(Boolean));

  function choose(change) {
    Object.assign(state, change);
    changed();
  }
  function apply() {
    if (search.value !== state.find) search.value = state.find;
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.kind === state.kind));
    const wanted = state.find.trim().toLowerCase();
    let count = 0;
    cards.forEach((card, index) => {
      const fits = (!state.kind || texts[index].kind === state.kind) && (!wanted || card.haystack.includes(wanted));
      card.node.hidden = !fits;
      count += fits ? 1 : 0;
      card.update();
    });
    shown.textContent = count ? `${count} of ${texts.length} examples` : "No example fits. Clear the search or choose another kind.";
  }
  // The text whose token the keys move: the one in use, else the first on show.
  function current() {
    const card = cards[state.example];
    return card && !card.node.hidden ? card : cards.find((other) => !other.node.hidden);
  }
  return { apply, search, current, at: (index) => cards[index] };
}

function legend() {
  const marks = [["0", "none"], ["2", "its equal share"], ["4", "2 times"], ["6", "4 times"], ["8", "8 times or more"]];
  return make("p", { class: "legend" }, "A token’s share of the attention: ",
    marks.map(([level, words]) => make("mark", { class: `weight-${level}` }, words)));
}

// Pieces of a text as marks, with what lies between them as it was.
function highlighted(text, weights) {
  const ghosts = new Set(text.ghosts), nodes = [];
  const marks = text.pieces.map((piece, index) => {
    const mark = make("mark", { class: `weight-${shade(weights[index] ?? 0, weights.length)}${ghosts.has(index) ? " ghost" : ""}`,
      "data-token": index }, piece);
    nodes.push(text.gaps[index], mark);
    return mark;
  });
  const tail = text.gaps[text.gaps.length - 1];
  if (tail.trim()) nodes.push(make("span", { class: "unread", title: "Beyond what the model read" }, tail));
  return { nodes, marks };
}

// The steps of a series as bars.
function drawBars(marks, weights) {
  const most = Math.max(...weights) || 1;
  marks.forEach((mark, index) => {
    mark.className = "";
    mark.style.height = `${Math.max(1, 100 * weights[index] / most)}%`;
  });
}

function textCard(text, index, kinds, state, changed) {
  const right = text.truth === text.prediction;
  const { nodes, marks } = highlighted(text, text.weights);
  if (text.series) drawBars(marks, text.weights);
  const body = make("p", { class: text.series ? "reading bars" : "reading", dir: "auto", tabindex: "0", role: "group",
    "aria-label": `Example ${text.id}. Arrow keys move from token to token, Enter pins.`, "aria-describedby": `status-${index}` }, nodes);
  const status = make("p", { class: "status", id: `status-${index}`, role: "status" });
  const known = text.truth !== null && text.prediction !== null;
  const answer = make("p", { class: "answer" },
    known ? [make("b", { dir: "auto" }, String(text.truth)), right ? ", predicted" : [", predicted ", make("b", { dir: "auto" }, String(text.prediction))]] : null,
    text.probability === null ? null : ` with ${percent(text.probability)}`);
  const side = make("div", { class: "side" }, text.weights.length ? ranking(strongest(text.weights, 4).map((token) => [token, text.weights[token]]), (token) => text.pieces[token],
    { caption: text.series ? "Strongest steps" : "Strongest tokens" }) : null);
  const kind = Math.max(0, kinds.indexOf(text.kind));
  const node = make("article", { class: "text", "data-example": index },
    make("header", {}, make("p", { class: `tag tag-${kind % 8}` }, capital(text.kind) || `Example ${text.id}`), answer),
    make("div", { class: "body" }, body, status), side);
  let hovered = -1;

  const pinned = () => (state.example === index && state.pinned ? state.token : -1);
  const cursor = () => (state.example === index ? state.token : -1);
  function update() {
    // A pin stands whatever the pointer is over.
    const chosen = pinned() >= 0 ? pinned() : hovered >= 0 ? hovered : cursor();
    marks.forEach((mark, place) => {
      mark.classList.toggle("pinned", place === pinned());
      mark.classList.toggle("cursor", place === chosen);
    });
    status.textContent = chosen >= 0 && chosen < marks.length
      ? describe(text.series ? `step ${text.pieces[chosen]}` : text.pieces[chosen], text.weights[chosen] ?? 0, text.weights) + (pinned() >= 0 ? " (pinned)" : "")
      : "";
  }
  function move(step) {
    const from = cursor();
    Object.assign(state, { example: index, token: from < 0 ? (step > 0 ? 0 : marks.length - 1) : clamp(from + step, 0, marks.length - 1) });
    marks[state.token].scrollIntoView({ block: "nearest" });
    changed();
  }
  function pin(place) {
    const again = pinned() === place;
    Object.assign(state, { example: index, token: place, pinned: !again });
    changed();
  }
  const tokenOf = (event) => Number(event.target.closest("mark")?.dataset.token ?? -1);
  body.addEventListener("pointerover", (event) => { hovered = tokenOf(event); update(); });
  body.addEventListener("pointerleave", () => { hovered = -1; update(); });
  body.addEventListener("click", (event) => { if (tokenOf(event) >= 0) pin(tokenOf(event)); });
  return {
    node, update, move,
    haystack: [text.gaps[0], ...text.pieces.map((piece, place) => piece + text.gaps[place + 1]), " ", text.truth, " ", text.prediction]
      .join("").toLowerCase(),
    pin: () => { if (cursor() >= 0) pin(cursor()); },
    figure: () => stripFigure(text.pieces, text.weights, `${text.truth} / ${text.prediction}`),
    focus: () => body.focus({ preventScroll: true }),
  };
}
