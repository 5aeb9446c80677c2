// The attention viewer: choose a head in the grid, read its matrix or its row, and see what a pinned token reads.

function startViewer(maps, state, changed) {
  const root = document.getElementById("maps");
  if (!root || !maps.length) return null;
  const texts = Math.max(...maps.map((map) => map.examples.length));
  const select = make("select", { id: "map-text", onchange: () => choose({ text: Number(select.value), row: 0, column: 0, held: false }) },
    Array.from({ length: texts }, (_, index) => make("option", { value: index }, `${index + 1}: ${opening(maps, index)}`)));
  const measure = make("select", { id: "measure", onchange: () => choose({ measure: measure.value }) },
    make("option", { value: "entropy" }, "how many tokens it reads (entropy)"), make("option", { value: "distance" }, "how far it looks (distance)"));
  const grid = headGrid(maps, state, choose);
  const title = make("h4", {}), note = make("p", { class: "note" });
  const save = make("button", { class: "plain", onclick: saveView }, "Save SVG");
  const canvas = make("canvas", { role: "img" });
  const box = make("div", { class: "matrix", tabindex: "0", role: "application", "aria-describedby": "map-status" }, canvas);
  const status = make("p", { class: "status", id: "map-status", role: "status" });
  const text = make("p", { class: "reading", dir: "auto" });
  const side = make("aside", { class: "side", "aria-label": "What the token reads" });
  const several = maps.length > 1 || maps.some((map) => map.heads > 1);
  root.append(
    make("div", { class: "controls" },
      texts > 1 ? make("label", {}, "Example ", select) : null,
      several ? make("label", {}, "Colour heads by ", measure) : null),
    make("div", { class: several ? "viewer" : "viewer single" }, several ? grid.node : null,
      make("div", { class: "stage" }, make("header", {}, title, save), note, box, status, text), side));

  let matrix = null, seen = null, hover = null;
  const view = matrixView(canvas, box);

  function choose(change) {
    Object.assign(state, change);
    changed("maps");
  }
  function apply() {
    state.map = clamp(state.map, 0, maps.length - 1);
    const map = maps[state.map];
    state.head = clamp(state.head, 0, map.heads - 1);
    state.text = clamp(state.text, 0, map.examples.length - 1);
    const example = map.examples[state.text], key = `${state.map}/${state.text}/${state.head}`;
    if (seen !== key) {
      matrix = readMatrix(example, state.head);
      seen = key;
      hover = null;
    }
    state.row = clamp(state.row, 0, example.rows - 1);
    state.column = clamp(state.column, 0, example.columns - 1);
    select.value = String(state.text);
    measure.value = state.measure;
    grid.update();
    title.textContent = map.heads > 1 ? `${map.name}, head ${state.head + 1} of ${map.heads}` : map.name;
    note.textContent = explain(example, matrix, state.head);
    box.setAttribute("aria-label", `Attention of ${title.textContent}, ${example.rows} queries and ${example.columns} keys. ` +
      "Arrow keys move, Enter pins the query.");
    update();
  }
  function update() {
    // A pinned query stands whatever the pointer is over; only the line that tells of one cell follows the pointer.
    const place = hover ?? { row: state.row, column: state.column }, row = state.held ? state.row : place.row;
    const { names, values } = matrix.row(row), { exact, example } = matrix;
    view.show(matrix, { row: matrix.rowOf(place.row), column: matrix.columnOf(place.column), pinned: state.held ? matrix.rowOf(state.row) : -1 });
    status.textContent = matrix.tell(place.row, place.column);
    side.replaceChildren(...ranking(names, values, exact ? 12 : names.length, {
      caption: example.rows === 1 ? "Strongest tokens" : `“${visible(matrix.queryName(row))}” reads${state.held ? " (pinned)" : ""}`,
      onpick: exact ? (column) => choose({ row, column, held: true }) : null, current: exact ? place.column : -1 }));
    text.hidden = !exact;
    if (exact) text.replaceChildren(...keyText(names, values, place.column));
  }
  function move(across, down) {
    const { rows, columns } = matrix.example;
    choose({ row: clamp(state.row + down, 0, rows - 1), column: clamp(state.column + across, 0, columns - 1) });
  }
  function moveHead(heads, layers) {
    const map = clamp(state.map + layers, 0, maps.length - 1);
    choose({ map, head: clamp(state.head + heads, 0, maps[map].heads - 1) });
  }
  function saveView() {
    const example = matrix.example, name = title.textContent;
    saveFigure(example.rows === 1 ? stripFigure(matrix.row(0).names, matrix.row(0).values, name) : matrixFigure(matrix, name), name);
  }
  canvas.addEventListener("pointermove", (event) => {
    const place = view.place(event);
    if (place?.row === hover?.row && place?.column === hover?.column) return;
    hover = place;
    update();
  });
  canvas.addEventListener("pointerleave", () => { hover = null; update(); });
  canvas.addEventListener("click", (event) => {
    const place = view.place(event);
    if (place) choose({ ...place, held: !(state.held && matrix.rowOf(state.row) === matrix.rowOf(place.row)) });
  });
  new ResizeObserver(() => update()).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => update());
  return { apply, move, moveHead, save: saveView, pin: () => choose({ held: !state.held }), focus: () => box.focus({ preventScroll: true }) };
}

// The first words of an example of the batch, to choose it by.
function opening(maps, index) {
  const keys = maps.map((map) => map.examples[index]?.keys).find(Boolean);
  if (!keys) return `of ${maps[0].examples.length}`;
  return keys.every((key) => /^\d+$/.test(key)) ? `${keys.length} steps` : shorten(keys.slice(0, 12).join(" "), 44);
}

function explain(example, matrix, head) {
  const effect = Math.exp(example.entropy[head]).toFixed(1);
  if (example.rows === 1) return `One row over ${example.columns} tokens, of which ${effect} are read in effect.`;
  const cell = matrix.exact ? "" : ` Too long to show every weight: a cell is the greatest of ${Math.round(example.rows / matrix.rows)} × ` +
    `${Math.round(example.columns / matrix.columns)} weights.`;
  return `Each row is a token that reads, each column one that is read; brighter is more. In effect a token reads ${effect} others.${cell}`;
}

// The keys as running text, shaded by what one query gives them.
function keyText(names, values, column) {
  const { nodes, marks } = highlighted({ pieces: names, gaps: [...names.map((_, index) => (index ? " " : "")), ""], ghosts: [] }, values);
  marks[column]?.classList.add("cursor");
  return nodes;
}

// One head on one example, every weight or blocks of them, with the same interface. Cells are what is drawn; rows and
// columns of the matrix count cells, those of the example count tokens.
function readMatrix(example, head) {
  const queries = example.queries ?? (example.rows === example.columns ? example.keys : null);
  const queryName = (token) => queries?.[token] ?? `#${token + 1}`, keyName = (token) => example.keys?.[token] ?? `#${token + 1}`;
  const [rows, columns] = example.blocks ?? [example.rows, example.columns];
  const rowOf = (token) => cellOf(token, rows, example.rows), columnOf = (token) => cellOf(token, columns, example.columns);
  const values = unpackWeights(example.weights ?? example.maxima, head, rows * columns);
  const matrix = { example, rows, columns, values, rowOf, columnOf, queryName, keyName, most: greatest(values), exact: Boolean(example.weights),
    rowStart: (cell) => startOf(cell, rows, example.rows), columnStart: (cell) => startOf(cell, columns, example.columns) };
  return Object.assign(matrix, matrix.exact ? exactRows(matrix) : coarseRows(matrix, head));
}

// Token `token` of `total` lies in this one of `count` blocks of nearly equal size, and a block begins at this token.
const cellOf = (token, count, total) => Math.floor(((token + 1) * count - 1) / total);
const startOf = (cell, count, total) => Math.floor((cell * total) / count);

function exactRows({ rows, columns, values, queryName, keyName }) {
  const names = Array.from({ length: columns }, (_, column) => keyName(column));
  const row = (index) => ({ names, values: Array.from(values.subarray(index * columns, (index + 1) * columns)) });
  const tell = (query, key) => (rows > 1 ? `“${visible(queryName(query))}” reads ` : "") + describe(names[key], values[query * columns + key], row(query).values);
  return { row, tell };
}

function coarseRows({ example, rows, columns, values, rowOf, columnOf, rowStart, columnStart, queryName, keyName }, head) {
  const { count } = example.top, all = example.rows * count, means = unpackWeights(example.means, head, rows * columns);
  const strengths = unpackWeights(example.top.weights, head, all);
  example.top.decoded = example.top.decoded ?? unpack(example.top.keys, 4 * all * example.top.weights.scale.length);
  const keys = new DataView(example.top.decoded.buffer, 4 * all * head);
  const row = (index) => ({
    names: Array.from({ length: count }, (_, rank) => keyName(keys.getUint32(4 * (index * count + rank), true))),
    values: Array.from(strengths.subarray(index * count, (index + 1) * count)),
  });
  const span = (name, first, next) => (next - first > 1 ? `“${visible(name(first))}” to “${visible(name(next - 1))}”` : `“${visible(name(first))}”`);
  const tell = (query, key) => {
    const down = rowOf(query), across = columnOf(key), cell = down * columns + across;
    return `${span(queryName, rowStart(down), rowStart(down + 1))} read ${span(keyName, columnStart(across), columnStart(across + 1))}: ` +
      `${percent(means[cell])} on average, ${percent(values[cell])} at most`;
  };
  return { row, tell };
}

const greatest = (values) => values.reduce((most, value) => Math.max(most, value), 0) || 1;

// Layers down, heads across: a button for each head, walked with the arrow keys.
function headGrid(maps, state, choose) {
  const most = Math.max(...maps.map((map) => map.heads)), buttons = [];
  const lines = maps.map((map, layer) => make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", title: map.name }, map.name),
    Array.from({ length: map.heads }, (_, head) => {
      const button = make("button", { class: "head", tabindex: "-1", onclick: () => choose({ map: layer, head }) });
      buttons.push({ button, layer, head });
      return make("td", { role: "gridcell" }, button);
    })));
  const ends = make("p", { class: "note ramp" });
  const node = make("div", { class: "heads" }, make("div", { class: "scroll" },
    make("table", { role: "grid", "aria-label": "Layers and heads. Arrow keys move." },
      make("thead", {}, make("tr", { role: "row" }, make("th", { role: "columnheader" }, "Layer"),
        Array.from({ length: most }, (_, head) => make("th", { scope: "col", role: "columnheader" }, String(head + 1))))),
      make("tbody", {}, lines))), ends);
  node.addEventListener("keydown", (event) => {
    const [across, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (!across && !down) return;
    event.preventDefault();
    event.stopPropagation();
    const map = clamp(state.map + down, 0, maps.length - 1);
    choose({ map, head: clamp(state.head + across, 0, maps[map].heads - 1) });
    buttons.find((other) => other.layer === state.map && other.head === state.head)?.button.focus();
  });
  function update() {
    const value = ({ layer, head }) => maps[layer].examples[Math.min(state.text, maps[layer].examples.length - 1)][state.measure]?.[head] ?? null;
    const known = buttons.map(value).filter((number) => number !== null);
    const low = Math.min(...known), high = Math.max(...known);
    const tell = (number) => state.measure === "entropy" ? `reads ${Math.exp(number).toFixed(1)} tokens in effect (entropy ${number.toFixed(2)})`
      : `looks ${number.toFixed(1)} tokens away on average`;
    for (const entry of buttons) {
      const number = value(entry), chosen = entry.layer === state.map && entry.head === state.head;
      const label = `${maps[entry.layer].name}, head ${entry.head + 1}: ${number === null ? "no distance between different sequences" : tell(number)}`;
      entry.button.style.backgroundColor = number === null ? "" : rgb(high > low ? (number - low) / (high - low) : 0.5);
      entry.button.setAttribute("aria-label", label);
      entry.button.setAttribute("aria-pressed", String(chosen));
      entry.button.title = label;
      entry.button.tabIndex = chosen ? 0 : -1;
    }
    const short = (number) => (state.measure === "entropy" ? `${Math.exp(number).toFixed(1)} tokens` : `${number.toFixed(1)} away`);
    ends.replaceChildren(...(known.length ? [make("i", { class: "viridis", "aria-hidden": "true" }), make("span", {}, short(low)), make("span", {}, short(high))] : []));
  }
  return { node, update };
}
