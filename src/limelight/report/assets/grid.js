// Layers down, heads across: a button for each head, walked with the arrow keys, colored by a measure.
import { make } from "./elements.js";
import { clamp, rgb } from "./words.js";

export const effective = (tokens) => tokens.toFixed(tokens < 99.5 ? 1 : 0);

// What heads are colored by: its name in the choice, a head in words, and an end of the scale.
export const MEASURES = {
  entropy: ["how many tokens it reads (entropy)", (value) => `reads ${effective(Math.exp(value))} tokens in effect (entropy ${value.toFixed(2)})`,
    (value) => `${effective(Math.exp(value))} tokens`],
  distance: ["how far it looks (distance)", (value) => `looks ${effective(value)} tokens away on average`, (value) => `${effective(value)} away`],
  importance: ["how much depends on it (importance)", (value) => `importance ${value.toPrecision(2)}`, (value) => value.toPrecision(2)],
  drift: ["how much it changed (divergence)", (value) => `divergence ${value.toPrecision(2)} from the first`, (value) => value.toPrecision(2)],
};

// The value of a measure for each head of a map on one example; null where there is none.
export function measureHeads(map, text, measure) {
  const values = measure === "importance" || measure === "drift" ? map[measure] : map.examples[Math.min(text, map.examples.length - 1)][measure];
  return Array.from({ length: map.heads }, (_, head) => values?.[head] ?? null);
}

// Names without the folders that all of them share, at the beginning and at the end: what is left tells them apart.
export function shortNames(names) {
  let parts = names.map((name) => name.split("/"));
  if (names.length < 2) return names;
  const drop = (place, cut) => {
    while (parts.every((each) => each.length > 1 && each.at(place) === parts[0].at(place))) parts = parts.map(cut);
  };
  drop(0, (each) => each.slice(1));
  drop(-1, (each) => each.slice(0, -1));
  return parts.map((each) => each.join("/"));
}

// Long names with at most so many letters: the first three, and those where a name differs from the one before or after it.
export function cutNames(names, most) {
  const differsAt = (name, other = "") => [...name].findIndex((letter, index) => letter !== other[index]);
  return names.map((name, index) => {
    if (name.length <= most) return name;
    const place = Math.max(differsAt(name, names[index - 1]), differsAt(name, names[index + 1]));
    if (place < most - 1) return `${name.slice(0, most - 1)}…`;
    const start = Math.min(place - 1, name.length - most + 4), end = start + most - 4;
    return `${name.slice(0, 3)}…${end < name.length ? `${name.slice(start, end - 1)}…` : name.slice(start)}`;
  });
}

// `current` returns the maps on show.
export function headGrid(current, state, choose) {
  const buttons = [], body = make("tbody"), headings = make("tr", { role: "row" }), ends = make("p", { class: "note ramp" });
  let built = null;
  const node = make("div", { class: "heads" }, make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Layers and heads" },
    make("table", { role: "grid", "aria-label": "Layers and heads. Arrow keys move." }, make("thead", {}, headings), body)), ends);
  node.addEventListener("keydown", (event) => {
    const [across, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (!across && !down) return;
    event.preventDefault();
    event.stopPropagation();
    const maps = current(), map = clamp(state.map + down, 0, maps.length - 1);
    choose({ map, head: clamp(state.head + across, 0, maps[map].heads - 1) });
    buttons.find((other) => other.layer === state.map && other.head === state.head)?.button.focus();
  });
  function build(maps) {
    built = maps;
    buttons.length = 0;
    node.classList.toggle("many", Math.max(...maps.map((map) => map.heads)) > 6);
    headings.replaceChildren(make("th", { role: "columnheader" }, "Layer"),
      ...Array.from({ length: Math.max(...maps.map((map) => map.heads)) }, (_, head) => make("th", { scope: "col", role: "columnheader" }, String(head + 1))));
    const names = cutNames(shortNames(maps.map((map) => map.name)), node.classList.contains("many") ? 10 : 14);
    body.replaceChildren(...maps.map((map, layer) => make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", title: map.name }, names[layer]),
      Array.from({ length: map.heads }, (_, head) => {
        const button = make("button", { class: "head", type: "button", tabindex: "-1", onclick: () => choose({ map: layer, head }) });
        buttons.push({ button, layer, head });
        return make("td", { role: "gridcell" }, button);
      }))));
  }
  function update() {
    const maps = current(), [, tell, short] = MEASURES[state.measure];
    if (built !== maps) build(maps);
    const table = maps.map((map) => measureHeads(map, state.text, state.measure)), known = table.flat().filter((value) => value !== null);
    const low = Math.min(...known), high = Math.max(...known);
    for (const { button, layer, head } of buttons) {
      const value = table[layer][head], chosen = layer === state.map && head === state.head;
      const words = `${maps[layer].name}, head ${head + 1}: ${value === null ? `no ${state.measure} here` : tell(value)}`;
      button.style.backgroundColor = value === null ? "" : rgb(high > low ? (value - low) / (high - low) : 0.5);
      if (button.title !== words) {
        button.setAttribute("aria-label", words);
        button.title = words;
      }
      button.setAttribute("aria-pressed", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
    ends.replaceChildren(...(known.length ? [make("i", { class: "viridis", "aria-hidden": "true" }), make("span", {}, short(low)), make("span", {}, short(high))] : []));
  }
  return { node, update };
}
