// The attention viewer: choose a head in the grid, see it as a matrix, as text, as arcs or along a series, pin a token and
// compare what it reads with another model, another epoch or another ranking.
import { chooseCurves, describeArcs, drawArcs } from "./arcs.js";
import { breakable, LIGHT, make, ranking, readColors } from "./elements.js";
import { effective, headGrid, measureHeads, MEASURES } from "./grid.js";
import { readHead, readRanking } from "./heads.js";
import { drawLines, short, stepAt } from "./lines.js";
import { matrixView } from "./matrix.js";
import { figureFrame, matrixFigure, saveFigure, stripFigure, textFigure } from "./saving.js";
import { tokenText } from "./tokens.js";
import { clamp, findName, isolate, percent, shorten, visible } from "./words.js";

const VIEWS = { matrix: "Matrix", text: "Text", arcs: "Arcs", lines: "Series" };
const MOST_HEADS_KEPT = 12;

export function startViewer(root, view, state, changed, id = "") {
  const { sets } = view, count = Math.max(...sets.flatMap((set) => set.maps.map((map) => map.examples.length)));
  const statusId = `${id}map-status`, heads = new Map();
  const found = Object.keys(MEASURES).filter((measure) => sets.some((set) => set.maps.some((map) => map.examples.some((_, text) => measureHeads(map, text, measure).some((value) => value !== null)))));
  const measures = found.length ? found : ["entropy"];
  let hover = null, shown = [];

  const option = (value, text) => make("option", { value }, text);
  const labelled = (text, control) => make("label", {}, `${text} `, control);
  const select = make("select", { class: "example", id: `${id}map-text`, onchange: () => choose({ text: Number(select.value), row: 0, column: 0, held: false }) },
    Array.from({ length: count }, (_, index) => option(index, `${index + 1}: ${opening(view, index)}`)));
  const titles = sets.map((set, index) => set.title || `Set ${index + 1}`);
  const setChoice = view.epochs
    ? make("input", { type: "range", min: 0, max: sets.length - 1, step: 1, "aria-label": "Epoch", oninput: () => choose({ set: Number(setChoice.value) }) })
    : make("select", { onchange: () => choose({ set: Number(setChoice.value) }) }, titles.map((title, index) => option(index, title)));
  const setName = make("output");
  const otherChoice = make("select", { class: "other", onchange: () => choose({ other: Number(otherChoice.value) }) }, option(-2, "nothing"), titles.map((title, index) => option(index, title)));
  const measure = make("select", { class: "measure", id: `${id}measure`, onchange: () => choose({ measure: measure.value }) }, measures.map((name) => option(name, MEASURES[name][0])));
  const several = sets.some((set) => set.maps.length > 1 || set.maps.some((map) => map.heads > 1));
  const grid = headGrid(() => sets[state.set].maps, state, choose);
  const title = make("h3"), label = make("p", { class: "note prediction" }), note = make("p", { class: "note explained" });
  const tabs = Object.entries(VIEWS).map(([name, text]) => make("button", { class: "chip", type: "button", "data-view": name, onclick: () => choose({ view: name }) }, text));
  const save = make("button", { class: "plain", type: "button", onclick: saveView }, "Save SVG");
  const zooms = [["−", "Zoom out", 0.5], ["+", "Zoom in", 2]].map(([text, words, factor]) => make("button", { class: "plain zoom", type: "button", "aria-label": words, onclick: () => zoom(factor) }, text));
  const find = make("input", { type: "search", placeholder: "Find a token", "aria-label": "Find a token; Enter finds the next", autocomplete: "off", spellcheck: "false",
    oninput: () => goTo(find.value, 0), onkeydown: (event) => { if (event.key === "Enter") goTo(find.value, 1); } });
  const status = make("p", { class: "status", id: statusId, role: "status" });
  const side = make("div", { class: "side", role: "group", "aria-label": "What the token reads" });
  const panes = [makePane(), makePane()];
  root.append(
    ...(view.notes ?? []).map((text) => make("p", { class: "note" }, text)),
    make("div", { class: "controls" },
      count > 1 ? labelled("Example", select) : null,
      sets.length > 1 ? [labelled(view.epochs ? "Epoch" : "Show", [setChoice, view.epochs ? setName : null].filter(Boolean)), labelled("beside", otherChoice)] : null,
      several ? labelled("Color heads by", measure) : null),
    make("div", { class: several ? "viewer" : "viewer single" }, several ? grid.node : null,
      make("div", { class: "stage" }, make("header", {}, title, save), label,
        make("div", { class: "controls tabs" }, make("div", { class: "chips", role: "group", "aria-label": "View" }, tabs), make("div", { class: "chips" }, zooms), find),
        note, make("div", { class: "panes" }, panes.map((pane) => pane.node)), status), side));

  function choose(change) {
    Object.assign(state, change);
    changed();
  }
  // What is chosen of a set: its map of the same name, the example and the head; null if the set has no such map.
  function selectIn(number) {
    const name = sets[state.set].maps[state.map].name, map = number === state.set ? state.map : sets[number].maps.findIndex((other) => other.name === name);
    const found = sets[number].maps[map], example = found?.examples[state.text];
    if (!example || state.head >= found.heads) return null;
    const key = `${number}/${map}/${state.text}/${state.head}`;
    if (!heads.has(key)) {
      if (heads.size >= MOST_HEADS_KEPT) heads.delete(heads.keys().next().value);
      heads.set(key, readHead(view, example, state.head));
    }
    return { number, map: found, head: heads.get(key) };
  }
  function apply() {
    state.set = clamp(state.set, 0, sets.length - 1);
    if (state.other >= sets.length || state.other < -2) state.other = -1;
    const maps = sets[state.set].maps, map = maps[(state.map = clamp(state.map, 0, maps.length - 1))];
    state.head = clamp(state.head, 0, map.heads - 1);
    state.text = clamp(state.text, 0, map.examples.length - 1);
    const { rows, columns } = map.examples[state.text];
    state.row = clamp(state.row, 0, rows - 1);
    state.column = clamp(state.column, 0, columns - 1);
    state.zoom = clamp(state.zoom, 1, 1 << Math.max(0, Math.floor(Math.log2(Math.max(rows, columns) / 8))));
    if (!measures.includes(state.measure)) state.measure = measures[0];
    if (!Object.hasOwn(VIEWS, state.view)) state.view = "";
    // Of two sets the other is beside the one, until the reader wants it away.
    const other = state.other === -1 && sets.length === 2 && !view.epochs ? 1 - state.set : state.other;
    hover = null;
    shown = [selectIn(state.set), ...(other >= 0 && other !== state.set ? [selectIn(other) ?? { number: other, head: null }] : [])];
    select.value = String(state.text);
    setChoice.value = String(state.set);
    setName.textContent = titles[state.set];
    otherChoice.value = String(other < 0 || other === state.set ? -2 : other);
    measure.value = state.measure;
    grid.update();
    const { head } = shown[0], kind = currentView();
    title.replaceChildren(...breakable(map.heads > 1 ? `${map.name}, head ${state.head + 1} of ${map.heads}` : map.name));
    label.textContent = view.labels?.[state.text] ?? "";
    label.hidden = !label.textContent;
    for (const tab of tabs) {
      tab.setAttribute("aria-pressed", String(tab.dataset.view === kind));
      tab.hidden = !isOffered(tab.dataset.view, head);
    }
    for (const button of zooms) button.hidden = kind !== "matrix" || Math.max(rows, columns) <= 32;
    find.hidden = !head.keys;
    note.textContent = explain(head, kind, state.zoom);
    panes.forEach((pane, index) => pane.choose(shown[index], kind));
    update();
    panes.forEach((pane) => pane.reveal(state, false));
  }
  const hasSeries = (head) => Boolean(view.series?.[state.text]) || Boolean(head.keys?.every((key) => /^\d+$/.test(key)));
  // Arcs lead from token to token.
  const isOffered = (kind, head) => (kind === "lines" ? hasSeries(head) : kind !== "arcs" || head.hasKeys);
  function currentView() {
    const { head } = shown[0];
    if (state.view && isOffered(state.view, head)) return state.view;
    return view.series?.[state.text] ? "lines" : head.rows === 1 && head.keys && !hasSeries(head) ? "text" : "matrix";
  }
  function update() {
    // A pinned query stands whatever the pointer is over; only the line that tells of one cell follows the pointer.
    const place = hover ?? { row: state.row, column: state.column }, row = state.held ? state.row : place.row;
    const mark = { row: place.row, column: place.column, reader: row, pinned: state.held ? state.row : -1 };
    panes.forEach((pane) => pane.show(mark));
    const known = shown.filter(({ head }) => head), values = currentView() === "lines" ? channelsOf().map((channel) => channel[place.column] ?? null).filter((value) => value !== null) : [];
    status.textContent = [...known.map(({ number, head }) => (known.length > 1 ? `${titles[number]}: ` : "") + head.tell(clamp(place.row, 0, head.rows - 1), clamp(place.column, 0, head.columns - 1))),
      ...(values.length ? [`Value: ${values.map(short).join(", ")}`] : []), panes[0].drawn()].filter(Boolean).join(". ");
    side.replaceChildren(...known.flatMap(({ number, head }) => {
      const { entries, rest } = head.top(clamp(row, 0, head.rows - 1), head.isExact ? 12 : 16);
      const caption = `${head.rows === 1 ? "Strongest tokens" : head.reads(clamp(row, 0, head.rows - 1))}${state.held ? " (pinned)" : ""}${known.length > 1 ? `, ${titles[number]}` : ""}`;
      return ranking(entries, head.entryName, { caption, rest, current: head.entryOf(clamp(place.column, 0, head.columns - 1)), onpick: (column) => choose({ row, column, held: true }) });
    }), ...otherRankings(row, place.column));
  }
  function otherRankings(row, column) {
    const { map, head } = shown[0];
    return (map.examples[state.text].rankings ?? []).flatMap((each) => {
      const entries = readRanking(each, state.head, row, head.rows).slice(0, 12);
      return ranking(entries, head.keyName, { caption: `By ${each.title}`, current: column, isSigned: true, onpick: (key) => choose({ column: key }) });
    });
  }
  const channelsOf = () => view.series?.[state.text] ?? [];

  // One half of the split: the same selection in one set, in the view that is on.
  function makePane() {
    const heading = make("h4"), box = make("div", { class: "drawing" }), node = make("div", { class: "pane" }, heading, box);
    let current = null, kind = "", choice = null, parts = {};
    const part = (name, create) => (parts[name] = parts[name] ?? create());
    const hoverOn = (change) => {
      const next = change && { row: state.row, column: state.column, ...change };
      if (next?.row === hover?.row && next?.column === hover?.column) return;
      hover = next;
      update();
    };
    const pick = (change) => choose({ ...change, held: !(state.held && state.row === (change.row ?? state.row) && (current.head.rows > 1 || state.column === change.column)) });
    // Where queries and keys are one text, a token reads; where they are not, each is its own.
    const asQuery = (token) => (current.head.rows > 1 && !(current.head.isSquare && state.held) ? { row: token } : { column: token });

    function matrix() {
      const drawn = matrixView("");
      drawn.canvas.addEventListener("pointermove", (event) => hoverOn(drawn.place(event)));
      drawn.canvas.addEventListener("pointerleave", () => hoverOn(null));
      drawn.canvas.addEventListener("click", (event) => { const place = drawn.place(event); if (place) pick(place); });
      drawn.node.setAttribute("aria-describedby", statusId);
      return drawn;
    }
    function text(name, toChange) {
      const pickToken = (token) => (current.head.isSquare || name === "queries" ? pick({ row: token }) : pick({ column: token }));
      return tokenText({ label: "", onhover: (token) => hoverOn(token < 0 ? null : toChange(token)), onpick: pickToken });
    }
    // Drawings that are made anew for each selection.
    function figure(words) {
      const drawn = make("div", { class: "figure", tabindex: "0", role: "application", "aria-label": words, "aria-describedby": statusId });
      drawn.addEventListener("pointerleave", () => hoverOn(null));
      const change = (event) => {
        if (kind === "lines") {
          const step = stepAt(event, drawn, current.head.columns);
          return step < 0 ? null : { column: step };
        }
        const { query, key } = event.target.dataset ?? {};
        return query !== undefined ? { row: Number(query) } : key !== undefined ? { column: Number(key) } : null;
      };
      drawn.addEventListener("pointermove", (event) => hoverOn(change(event)));
      drawn.addEventListener("click", (event) => { const place = change(event); if (place) pick(place); });
      return drawn;
    }
    function chooseParts(next, nextKind) {
      current = next;
      kind = nextKind;
      node.hidden = !next;
      heading.hidden = shown.length < 2;
      if (!next) return;
      heading.textContent = titles[next.number];
      if (!next.head) {
        box.replaceChildren(make("p", { class: "note" }, "This layer, head or example is not here."));
        return;
      }
      const words = `Attention of ${title.textContent}, ${next.head.rows} queries and ${next.head.columns} keys. Arrow keys move, Enter pins the query.`;
      let nodes;
      if (kind === "matrix") nodes = [part("matrix", matrix).node];
      else if (kind === "text") {
        const keys = part("keys", () => text("keys", (token) => (current.head.isSquare ? asQuery(token) : { column: token })));
        nodes = [keys.node];
        if (next.head.rows > 1 && !next.head.isSquare) nodes = [make("p", { class: "note" }, "Reads"), part("queries", () => text("queries", (token) => ({ row: token }))).node, make("p", { class: "note" }, "Is read"), keys.node];
      } else nodes = [part("figure", () => figure(words))];
      for (const each of nodes) if (each.hasAttribute("tabindex")) each.setAttribute("aria-label", words);
      if (nodes.length !== box.children.length || nodes.some((each, index) => each !== box.children[index] && each.hasAttribute("tabindex"))) box.replaceChildren(...nodes);
    }
    function show(mark) {
      if (!current?.head || !box.clientWidth) return;
      const { head } = current, row = clamp(mark.row, 0, head.rows - 1), reader = clamp(mark.reader, 0, head.rows - 1), column = clamp(mark.column, 0, head.columns - 1);
      if (kind === "matrix") parts.matrix.show(head, { ...mark, row, column }, state.zoom);
      else if (kind === "text") showText(head, reader, column, mark.pinned);
      else {
        choice = kind === "arcs" ? chooseCurves(head, reader, choice) : null;
        parts.figure.replaceChildren(drawFigure(head, { ...mark, row: reader, column }, box.clientWidth, readColors(node)));
      }
    }
    function showText(head, row, column, pinned) {
      const weightOf = head.row(row);
      const names = (total, name) => Array.from({ length: total }, (_, index) => name(index));
      head.keyNames = head.keyNames ?? head.keys ?? names(head.columns, head.keyName);
      parts.keys.setNames(head.keyNames);
      parts.keys.paint({ weightOf, count: head.permitted(row), row: head.isSquare ? row : -1, column, pinned: head.isSquare ? pinned : head.rows === 1 && pinned >= 0 ? column : -1 });
      if (head.rows === 1 || head.isSquare) return;
      head.queryNames = head.queryNames ?? head.queries ?? names(head.rows, head.queryName);
      parts.queries.setNames(head.queryNames);
      parts.queries.paint({ weightOf: () => 0, count: 0, row, column: -1, pinned });
    }
    const drawFigure = (head, mark, width, colors, top = 0) => (kind === "arcs" ? drawArcs(head, mark, choice, width, colors, top) : drawLines(head, mark, channelsOf(), width, colors, top));
    // The view as a figure of its own.
    function toFigure(name) {
      const { head } = current, row = clamp(state.row, 0, head.rows - 1), mark = { row, column: state.column, pinned: state.held ? row : -1 };
      if (kind === "matrix") return head.rows === 1 && head.isExact ? stripFigure(Array.from({ length: head.columns }, (_, key) => head.keyName(key)), head.weights(0), name) : matrixFigure(head, name);
      if (kind === "text") {
        return textFigure(head.keyNames, (key) => head.weight(row, key), head.permitted(row), name, head.rows > 1 ? `What ${head.reads(row)}` : "");
      }
      const drawn = drawFigure(head, mark, 680, LIGHT, 34);
      return figureFrame(680, Number(drawn.getAttribute("height")), name, drawn);
    }
    return { node, choose: chooseParts, show, toFigure, reveal: (mark, mayScrollPage) => {
      if (kind !== "text" || !current?.head) return;
      if (parts.queries && !current.head.isSquare) parts.queries.reveal(mark.row, mayScrollPage);
      parts.keys.reveal(current.head.isSquare ? mark.row : mark.column, mayScrollPage);
    }, drawn: () => (kind === "arcs" && current?.head ? describeArcs(current.head, clamp(state.row, 0, current.head.rows - 1), choice ?? chooseCurves(current.head, state.row)) : "") };
  }

  function move(across, down) {
    const { rows, columns } = shown[0].head, kind = currentView();
    const onRows = kind === "text" ? (rows > 1 ? across : 0) : down, onColumns = kind === "text" ? (rows > 1 ? down : across || down) : across;
    choose({ row: clamp(state.row + onRows, 0, rows - 1), column: clamp(state.column + onColumns, 0, columns - 1) });
    panes.forEach((pane) => pane.reveal(state, true));
  }
  function moveHead(more, layers) {
    const { maps } = sets[state.set], map = clamp(state.map + layers, 0, maps.length - 1);
    choose({ map, head: clamp(state.head + more, 0, maps[map].heads - 1) });
  }
  const zoom = (factor) => choose({ zoom: clamp(state.zoom * factor, 1, 4096) });
  function goTo(words, step) {
    const { head } = shown[0], onRows = head.isSquare, token = findName(head.keys ?? [], words, (onRows ? state.row : state.column) + step);
    find.setAttribute("aria-invalid", String(Boolean(words.trim()) && token < 0));
    if (token < 0) return;
    choose(onRows ? { row: token } : { column: token });
    panes.forEach((pane) => pane.reveal(state, true));
  }
  function saveView() {
    for (const [index, { number, head }] of shown.entries()) {
      const name = shown.length > 1 ? `${title.textContent}, ${titles[number]}` : title.textContent;
      if (head) saveFigure(panes[index].toFigure(name), name);
    }
  }
  // A view that is taller than the last one changes the height alone, for which nothing is drawn again.
  let width = 0;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    update();
  }).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => update());
  return { root, apply, move, moveHead, zoom, save: saveView, search: find, pin: () => choose({ held: !state.held }) };
}

// The first words of an example of the batch, to choose it by.
function opening(view, index) {
  const keys = view.sets.flatMap((set) => set.maps).map((map) => view.tokens[map.examples[index]?.keys]).find(Boolean);
  if (!keys) return `of ${view.sets[0].maps[0].examples.length}`;
  return keys.slice(0, 100).every((key) => /^\d+$/.test(key)) ? `${keys.length} steps` : isolate(shorten(keys.slice(0, 12).map(visible).join(" "), 44));
}

function explain(head, kind, zoom) {
  const { rows, columns } = head, entropy = head.example.entropy[head.number], effect = effective(Math.exp(entropy ?? 0));
  if (rows === 1) return `One row over ${head.permitted(0)} tokens${entropy === null ? "" : `, of which ${effect} are read in effect`}.`;
  const reads = entropy === null ? "" : `In effect a token reads ${effect} tokens.`;
  const finest = head.example.levels[head.example.levels.length - 1], block = `${Math.round(rows / finest.rows)} × ${Math.round(columns / finest.columns)}`;
  if (kind === "text") return `The shade is what the current token reads. ${reads}${head.hasKeys ? "" : ` Too long to show each token: shades and list are means of blocks of ${block} weights.`}`;
  if (kind === "arcs") return `Curves lead from the token that reads to those that it reads. ${reads}`;
  if (kind === "lines") return `Bars are the weights of the current query over the steps. ${reads}`;
  const cell = head.isExact ? "" : ` Too long to show every weight: a cell is the greatest of ${block} weights or more.`;
  return `Each row is a token that reads, each column one that is read; brighter is more. ${reads}${cell}${zoom > 1 ? ` Zoom ${zoom}.` : ""}`;
}
