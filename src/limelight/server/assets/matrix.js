// A map of any size on a canvas: squares of 256 x 256 cells are fetched when they come into view.

const TILE = 256, MAX_TILES = 64;

export function createMatrix({ canvas, caption, reading, request }) {
  const context = canvas.getContext("2d");
  let view = null, tiles = new Map(), drag = null;

  function show(run, map, head) {
    const key = JSON.stringify([run, map.key, head]);
    if (view?.key === key) { draw(); return; }
    const queries = (map.query_tokens ?? [])[0], keys = (map.tokens ?? [])[0];
    // What lies beyond the tokens is padding.
    const rows = queries?.length || map.shape.at(-2), columns = keys?.length || map.shape.at(-1);
    const zoom = view && view.rows === rows && view.columns === columns ? view.zoom : Math.min(FIRST_ZOOM, fit(Math.max(rows, columns)));
    const [row, column] = view && view.rows === rows && view.columns === columns ? [view.row, view.column] : [0, 0];
    view = { key, run, map: map.key, head, rows, columns, zoom, row, column, tokens: keys, queries, largest: 0 };
    for (const tile of tiles.values()) tile.controller?.abort();
    tiles = new Map();
    draw();
  }

  // The smallest zoom at which three tiles hold the map. The first look at a long map takes part of it: the whole takes long.
  const fit = (length) => Math.max(0, Math.ceil(Math.log2(length / (3 * TILE))));
  const FIRST_ZOOM = 4;
  const shown = () => (3 * TILE) << view.zoom;

  function draw() {
    if (!view) return;
    context.clearRect(0, 0, canvas.width, canvas.height);
    const extent = TILE << view.zoom, side = shown(), scale = canvas.width / Math.min(side, Math.max(view.rows, view.columns));
    view.scale = scale;
    const visible = new Set();
    for (let row = Math.floor(view.row / extent); row * extent < Math.min(view.row + side, view.rows); row++) {
      for (let column = Math.floor(view.column / extent); column * extent < Math.min(view.column + side, view.columns); column++) {
        const tile = fetchTile(row, column);
        visible.add(tile);
        if (!tile.image) continue;
        const x = (column * extent - view.column) * scale, y = (row * extent - view.row) * scale;
        const width = (tile.columns << view.zoom) * scale, height = (tile.rows << view.zoom) * scale;
        context.imageSmoothingEnabled = false;
        if (tile.largest !== view.largest) paint(tile);
        context.drawImage(tile.image, x, y, width, height);
      }
    }
    // The server shall not compute what has gone out of sight.
    for (const tile of tiles.values()) if (!visible.has(tile)) tile.controller?.abort();
    const last = (start, length) => Math.min(start + side, length);
    const isEstimated = [...visible].some((tile) => tile.image && tile.share < 1);
    caption.textContent = `Queries ${view.row} to ${last(view.row, view.rows) - 1} of ${view.rows}, keys ${view.column} to ${last(view.column, view.columns) - 1} of ${view.columns}` +
      (view.zoom ? `; each cell is the maximum of ${1 << view.zoom} x ${1 << view.zoom} weights.` : "; each cell is one weight.") +
      (view.largest ? ` The brightest is ${view.largest.toPrecision(2)}.` : "") +
      (isEstimated ? " Some cells are of a sample of their queries until all have been read." : "");
  }

  function fetchTile(row, column) {
    const key = `${view.zoom}/${row}/${column}`, tile = tiles.get(key) ?? { image: null, maxima: null, share: 0, controller: null };
    if (tile.share === 1 || tile.controller) return tile;
    tiles.set(key, tile);
    while (tiles.size > MAX_TILES) {
      const oldest = tiles.keys().next().value;
      tiles.get(oldest).controller?.abort();
      tiles.delete(oldest);
    }
    load(tile, key, row, column);
    return tile;
  }

  // The first answer may be of a sample of the queries; the exact one follows.
  async function load(tile, key, row, column) {
    const { key: owner, run, map, head, zoom } = view;
    tile.controller = new AbortController();
    const { signal } = tile.controller;
    try {
      for (const sampled of tile.image ? [0] : [1, 0]) {
        const query = new URLSearchParams({ map, head, row, column, zoom, sampled });
        const response = await request(`runs/${run}/tile?${query}`, { signal }), buffer = await response.arrayBuffer();
        const [rows, columns] = new Uint32Array(buffer, 0, 2);
        const maxima = new Float32Array(buffer, 8 + 4 * rows * columns, rows * columns), share = Number(response.headers.get("limelight-share"));
        if (view.key !== owner) return;
        view.largest = maxima.reduce((largest, value) => Math.max(largest, value), view.largest);
        paint(Object.assign(tile, { rows, columns, maxima, share }));
        draw();
        if (share === 1) break;
      }
    } catch (error) {
      if (tile.image === null) tiles.delete(key);
      if (!signal.aborted) reading.textContent = error.message;
    }
    tile.controller = null;
    // It may have come into sight again meanwhile.
    if (signal.aborted && view.key === owner) draw();
  }

  // Square roots of the shares of the largest weight that was seen: most weights of a long row are small.
  function paint(tile) {
    const { rows, columns, maxima } = tile;
    const image = new OffscreenCanvas(columns, rows), target = image.getContext("2d"), pixels = target.createImageData(columns, rows);
    const largest = Math.max(view.largest, 1e-12);
    maxima.forEach((value, index) => pixels.data.set([...color(Math.sqrt(Math.min(1, value / largest))), 255], 4 * index));
    target.putImageData(pixels, 0, 0);
    Object.assign(tile, { image, largest: view.largest });
  }

  function move(rows, columns) {
    const side = shown(), clip = (value, length) => Math.max(0, Math.min(Math.round(value), Math.max(0, length - side)));
    view.row = clip(view.row + rows, view.rows);
    view.column = clip(view.column + columns, view.columns);
    draw();
  }

  function zoomBy(step, x = 0.5, y = 0.5) {
    const before = shown(), zoom = Math.max(0, Math.min(fit(Math.max(view.rows, view.columns)), view.zoom + step));
    if (zoom === view.zoom) return;
    view.zoom = zoom;
    const difference = before - shown();
    move(difference * y, difference * x);
  }

  function read(event) {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width / view.scale;
    const row = Math.floor(view.row + (event.clientY - box.top) * ratio), column = Math.floor(view.column + (event.clientX - box.left) * ratio);
    if (row < 0 || column < 0 || row >= view.rows || column >= view.columns) return;
    const extent = TILE << view.zoom, tile = tiles.get(`${view.zoom}/${Math.floor(row / extent)}/${Math.floor(column / extent)}`);
    if (!tile?.maxima) return;
    const cell = (position) => (position % extent) >> view.zoom;
    const value = tile.maxima[cell(row) * tile.columns + cell(column)];
    const name = (position, tokens) => (tokens?.[position] === undefined ? String(position) : `${position} “${tokens[position].slice(0, 40)}”`);
    reading.textContent = `${name(row, view.queries)} attends to ${name(column, view.tokens)}: ${tile.share < 1 ? "about " : ""}${value.toFixed(4)}`;
  }

  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key], step = event.key === "+" || event.key === "=" ? -1 : event.key === "-" ? 1 : 0;
    if (!view || (!arrow && !step)) return;
    event.preventDefault();
    if (arrow) move(...arrow.map((each) => each * (TILE << view.zoom) / 2));
    else zoomBy(step);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoomBy(Math.sign(event.deltaY), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!view) return;
    if (!drag) { read(event); return; }
    const ratio = canvas.width / canvas.getBoundingClientRect().width / view.scale;
    move((drag.y - event.clientY) * ratio, (drag.x - event.clientX) * ratio);
    drag = { x: event.clientX, y: event.clientY };
  });
  return { show };
}

// Viridis by five points.
const POINTS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
export function color(share) {
  const place = Math.max(0, Math.min(0.9999, share)) * 4, index = Math.floor(place), rest = place - index;
  return POINTS[index].map((value, channel) => Math.round(value + rest * (POINTS[index + 1][channel] - value)));
}
