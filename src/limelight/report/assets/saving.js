// Figures as standalone SVG, made from the numbers and not from the screen.
import { draw, make, LIGHT, SVG } from "./elements.js";
import { clamp, percent, rgb, shade, shorten, visible } from "./words.js";

const AMBER = [0, 0.09, 0.17, 0.26, 0.36, 0.48, 0.64, 0.82, 1];

export function figureFrame(width, height, title, ...children) {
  return draw("svg", { xmlns: SVG, viewBox: `0 0 ${width} ${height}`, width, height, "font-family": LIGHT.font, "font-size": 11, fill: LIGHT.ink },
    draw("title", {}, title), draw("rect", { width, height, fill: LIGHT.paper }), draw("text", { x: 12, y: 22, "font-size": 14, "font-weight": 600 }, title), children);
}

// One row of weights: a bar for each token.
export function stripFigure(tokens, weights, title) {
  const step = 18, height = 120, width = Math.max(320, tokens.length * step + 70), top = 40, most = Math.max(...weights) || 1;
  return figureFrame(width, top + height + 100, title,
    draw("text", { x: 46, y: top + 8, "text-anchor": "end" }, percent(most)),
    draw("line", { x1: 50, x2: width - 10, y1: top + height, y2: top + height, stroke: "#888" }),
    tokens.map((token, index) => {
      const tall = (height * weights[index]) / most || 0, x = 54 + index * step;
      return [draw("rect", { x, y: top + height - tall, width: step - 4, height: tall, fill: "#b98900" }),
        draw("text", { transform: `translate(${x + 10} ${top + height + 6}) rotate(-90)`, "text-anchor": "end" }, shorten(visible(token), 14))];
    }));
}

// A matrix of weights: runs of one color in a row become one rectangle.
export function matrixFigure(head, title) {
  const level = head.level(head.rows, "rows", 512), { rows, columns } = level;
  const cell = clamp(Math.floor(640 / Math.max(rows, columns)), 1, 24), left = 110, top = 120, named = cell >= 9 && rows === head.rows && columns === head.columns;
  const svg = figureFrame(left + columns * cell + 20, top + rows * cell + 20, title,
    draw("rect", { x: left, y: top, width: columns * cell, height: rows * cell, fill: rgb(0) }));
  const tone = (row, column) => Math.round(32 * Math.sqrt(level.maximum(row, column) / head.most));
  for (let row = 0; row < rows; row++) {
    for (let start = 0, end; start < columns; start = end) {
      const value = tone(row, start);
      for (end = start + 1; end < columns && tone(row, end) === value;) end++;
      if (value !== 0) svg.append(draw("rect", { x: left + start * cell, y: top + row * cell, width: (end - start) * cell, height: cell, fill: value > 0 ? rgb(value / 32) : LIGHT.paper }));
    }
    if (named) svg.append(draw("text", { x: left - 6, y: top + row * cell + cell / 2 + 4, "text-anchor": "end" }, shorten(visible(head.queryName(row)), 14)));
  }
  for (let column = 0; named && column < columns; column++) {
    svg.append(draw("text", { transform: `translate(${left + column * cell + cell / 2 + 4} ${top - 6}) rotate(-90)` }, shorten(visible(head.keyName(column)), 14)));
  }
  return svg;
}

// Words with their shades, in lines of at most 640 units.
export function textFigure(names, weightOf, count, title, note = "") {
  const pen = make("canvas").getContext("2d"), pieces = [];
  pen.font = `15px ${LIGHT.font}`;
  let x = 16, y = 62;
  for (const [index, name] of names.slice(0, 2000).entries()) {
    const text = shorten(visible(name), 60), wide = pen.measureText(text).width;
    if (x + wide > 640 && x > 16) [x, y] = [16, y + 27];
    const level = shade(weightOf(index), count);
    if (level) pieces.push(draw("rect", { x: x - 2, y: y - 15, width: wide + 4, height: 21, rx: 3, fill: LIGHT.lamp, "fill-opacity": AMBER[level] }));
    pieces.push(draw("text", { x, y, "font-size": 15 }, text));
    x += wide + 6;
  }
  return figureFrame(660, y + 26, title, draw("text", { x: 16, y: 39, fill: LIGHT.soft }, note), pieces);
}

export function saveFigure(svg, name) {
  const address = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" }));
  make("a", { href: address, download: `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-") || "attention"}.svg` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
