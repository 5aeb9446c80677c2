// The matrix on its canvas: a window of the weights at a zoom, thinned names on both axes, the current row and column.
import { make, readColors } from "./elements.js";
import { clamp, fit, shorten, viridis, visible } from "./words.js";

const NAME_WIDTH = 96;
// A pixel for each of 256 shares.
const PALETTE = new Uint32Array(new Uint8Array(Array.from({ length: 256 }, (_, level) => [...viridis(level / 255), 255]).flat()).buffer);

// A window of `size` tokens that contains the current one; it moves as little as it must, and is centered after a new zoom.
export function windowAround(token, total, size, before) {
  const count = Math.min(total, size);
  let start = before && before.count === count ? before.start : token - Math.floor(count / 2);
  if (token < start) start = token;
  if (token >= start + count) start = token - count + 1;
  return { start: clamp(start, 0, total - count), count };
}

export function matrixView(label) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const node = make("div", { class: "matrix", tabindex: "0", role: "application", "aria-label": label, "aria-describedby": "map-status" }, canvas);
  let layout = null, painted = null, down = null, across = null, colors = null;

  function measure(head, zoom, mark) {
    const wide = node.clientWidth, gutter = Math.min(NAME_WIDTH, wide * 0.26);
    const fewest = (total) => Math.max(Math.min(total, 8), Math.ceil(total / zoom));
    across = windowAround(mark.column, head.columns, fewest(head.columns), across);
    down = windowAround(mark.row, head.rows, fewest(head.rows), down);
    const room = head.rows === 1 ? wide - 2 : wide - gutter - 2, step = Math.min(room / across.count, 30);
    if (head.rows === 1) return { strip: true, left: 1, top: 8, step, tall: 120, width: wide, height: step >= 11 ? 138 + nameRoom(head) : 132 };
    const tall = Math.min(step, 620 / down.count);
    return { strip: false, left: gutter, top: NAME_WIDTH, step, tall, width: wide, height: NAME_WIDTH + tall * down.count + 4 };
  }
  // The height of the rotated names below a strip: the longest name, at most NAME_WIDTH.
  function nameRoom(head) {
    const pen = canvas.getContext("2d");
    pen.font = `12px ${colors.font}`;
    return Math.min(NAME_WIDTH, Math.max(...Array.from({ length: across.count }, (_, index) => pen.measureText(visible(head.keyName(across.start + index))).width)));
  }
  function show(head, mark, zoom) {
    if (!node.clientWidth) return;
    colors = readColors(node);
    layout = { ...measure(head, zoom, mark), head };
    const dots = window.devicePixelRatio || 1, width = Math.round(layout.width * dots), height = Math.round(layout.height * dots);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.height = `${layout.height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    pen.clearRect(0, 0, layout.width, layout.height);
    pen.font = `12px ${colors.font}`;
    (layout.strip ? strip : cells)(pen, head, mark, dots);
  }
  function cells(pen, head, { row, column, pinned }, dots) {
    const { left, top, step, tall } = layout, wide = step * across.count, high = tall * down.count;
    const key = `${wide}/${high}/${dots}/${down.start}/${across.start}`;
    if (painted?.head !== head || painted.key !== key) {
      painted = { head, key, image: paint(head, down, across, Math.floor(wide * dots), Math.floor(high * dots)) };
    }
    const { image, box } = painted.image;
    pen.imageSmoothingEnabled = false;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, wide, high);
    pen.clip();
    pen.drawImage(image, left + (box.left - across.start) * step, top + (box.top - down.start) * tall, (box.right - box.left) * step, (box.bottom - box.top) * tall);
    pen.restore();
    const x = (token) => left + (token - across.start) * step, y = (token) => top + (token - down.start) * tall;
    names(pen, down, tall, [row, pinned], (index, strong) => {
      pen.textAlign = "right";
      label12(pen, strong, head.queryName(index), left - 7, y(index + 0.5) + 4, 0);
    });
    names(pen, across, step, [column], (index, strong) => {
      pen.textAlign = "left";
      label12(pen, strong, head.keyName(index), x(index + 0.5) + 4, top - 7, -Math.PI / 2);
    });
    pen.lineWidth = 1;
    pen.strokeStyle = "rgb(255 255 255 / 0.75)";
    pen.strokeRect(x(column) + 0.5, top + 0.5, Math.max(step - 1, 1), high - 1);
    if (row >= down.start && row < down.start + down.count) pen.strokeRect(left + 0.5, y(row), wide - 1, Math.max(tall - 1, 1));
    if (pinned >= down.start && pinned < down.start + down.count) {
      pen.lineWidth = 2.5;
      pen.strokeStyle = colors.accent;
      pen.strokeRect(left - 1, y(pinned) - 1, wide + 2, tall + 2);
    }
  }
  function strip(pen, head, mark) {
    const { left, top, step, tall } = layout, level = head.level(across.count, "columns", 4 * layout.width);
    pen.fillStyle = colors.faint;
    pen.fillRect(left, top + tall, step * across.count, 1);
    const [first, last] = [across.start, across.start + across.count - 1].map(level.columnOf), chosen = level.columnOf(mark.column);
    for (let cell = first; cell <= last; cell++) {
      const from = Math.max(level.columnStart(cell), across.start), wide = (level.columnStart(cell + 1) - from) * step;
      const high = (tall * level.maximum(0, cell)) / head.most;
      pen.fillStyle = cell === chosen ? colors.accent : colors.lamp;
      pen.fillRect(left + (from - across.start) * step + (step > 4 ? 1 : 0), top + tall - high, step > 4 ? wide - 2 : Math.max(wide, 1), high);
    }
    if (step < 11) return;
    names(pen, across, step, [mark.column], (index, strong) => {
      pen.textAlign = "right";
      label12(pen, strong, head.keyName(index), left + (index - across.start + 0.5) * step + 4, top + tall + 8, -Math.PI / 2);
    });
  }
  // Every name that fits, and always the current ones: their neighbours are left out.
  function names(pen, { start, count }, step, chosen, write) {
    const each = Math.max(1, Math.ceil(13 / step)), inside = chosen.filter((index) => index >= start && index < start + count);
    for (let index = Math.ceil(start / each) * each; index < start + count; index += each) {
      if (!inside.some((other) => other !== index && Math.abs(other - index) * step < 13)) write(index, inside.includes(index));
    }
    for (const index of inside) if (index % each) write(index, true);
  }
  function label12(pen, strong, name, x, y, angle) {
    pen.save();
    pen.translate(x, y);
    pen.rotate(angle);
    pen.fillStyle = strong ? colors.accent : colors.ink;
    const room = (angle ? NAME_WIDTH : Math.max(layout.left, 40)) - 10;
    pen.fillText(fit(shorten(visible(name), 40), room, (text) => pen.measureText(text).width), 0, 0);
    pen.restore();
  }
  function place(event) {
    if (!layout) return null;
    const edge = canvas.getBoundingClientRect(), { head } = layout;
    const column = across.start + Math.floor((event.clientX - edge.left - layout.left) / layout.step);
    const row = layout.strip ? 0 : down.start + Math.floor((event.clientY - edge.top - layout.top) / layout.tall);
    const inside = row >= down.start && column >= across.start && row < Math.min(down.start + down.count, head.rows) && column < across.start + across.count;
    return inside ? { row, column } : null;
  }
  return { node, canvas, show, place };
}

// A window of weights as pixels. Where there are more cells than pixels a pixel shows the greatest of its cells: a mean would
// hide spikes. The box is where the cells at the edge of the window begin and end.
function paint(head, down, across, mostWide, mostHigh) {
  const level = head.level(Math.max(down.count, across.count), down.count > across.count ? "rows" : "columns", 2 * Math.max(mostWide, mostHigh));
  const [top, left] = [level.rowOf(down.start), level.columnOf(across.start)];
  const rows = level.rowOf(down.start + down.count - 1) + 1 - top, columns = level.columnOf(across.start + across.count - 1) + 1 - left;
  const wide = Math.max(1, Math.min(columns, mostWide)), high = Math.max(1, Math.min(rows, mostHigh)), maxima = new Float32Array(wide * high);
  const places = Array.from({ length: columns }, (_, column) => Math.floor((column * wide) / columns));
  for (let row = 0; row < rows; row++) {
    const line = Math.floor((row * high) / rows) * wide;
    for (let column = 0; column < columns; column++) {
      const at = line + places[column], value = level.maximum(top + row, left + column);
      if (value > maxima[at] || Number.isNaN(value)) maxima[at] = value;
    }
  }
  const image = make("canvas", { width: wide, height: high }), pen = image.getContext("2d"), pixels = pen.createImageData(wide, high);
  const colors = new Uint32Array(pixels.data.buffer);
  // What is missing has no color of the palette, and stays transparent.
  for (let index = 0; index < maxima.length; index++) colors[index] = PALETTE[Math.round(255 * Math.sqrt(Math.min(maxima[index] / head.most, 1)))];
  pen.putImageData(pixels, 0, 0);
  return { image, box: { top: level.rowStart(top), bottom: level.rowStart(top + rows), left: level.columnStart(left), right: level.columnStart(left + columns) } };
}
