// Figures as standalone SVG, made from the numbers and not from the screen.

const FONT = "system-ui, sans-serif";

function figureFrame(width, height, title) {
  const svg = draw("svg", { xmlns: SVG, viewBox: `0 0 ${width} ${height}`, width, height, "font-family": FONT, "font-size": 11, fill: "#222" });
  svg.append(draw("title", {}, title), draw("rect", { width, height, fill: "#fff" }),
    draw("text", { x: 12, y: 22, "font-size": 14, "font-weight": 600 }, title));
  return svg;
}

// One row of weights: a bar for each token.
function stripFigure(tokens, weights, title) {
  const step = 18, height = 120, width = Math.max(320, tokens.length * step + 70), top = 40;
  const svg = figureFrame(width, top + height + 100, title), most = Math.max(...weights) || 1;
  svg.append(draw("text", { x: 46, y: top + 8, "text-anchor": "end" }, percent(most)),
    draw("line", { x1: 50, x2: width - 10, y1: top + height, y2: top + height, stroke: "#888" }));
  tokens.forEach((token, index) => {
    const tall = (height * weights[index]) / most, x = 54 + index * step;
    svg.append(draw("rect", { x, y: top + height - tall, width: step - 4, height: tall, fill: "#b98900" }),
      draw("text", { transform: `translate(${x + 10} ${top + height + 6}) rotate(-90)`, "text-anchor": "end" }, shorten(visible(token), 14)));
  });
  return svg;
}

// A matrix of weights: runs of one colour in a row become one rectangle.
function matrixFigure(matrix, title) {
  const { rows, columns, values, most } = matrix, cell = clamp(Math.floor(640 / Math.max(rows, columns)), 1, 24);
  const left = 110, top = 120, named = cell >= 9;
  const svg = figureFrame(left + columns * cell + 20, top + rows * cell + 20, title);
  svg.append(draw("rect", { x: left, y: top, width: columns * cell, height: rows * cell, fill: rgb(0) }));
  const level = (row, column) => Math.round(32 * Math.sqrt(values[row * columns + column] / most));
  for (let row = 0; row < rows; row++) {
    for (let start = 0, end; start < columns; start = end) {
      const value = level(row, start);
      for (end = start + 1; end < columns && level(row, end) === value;) end++;
      if (value > 0) svg.append(draw("rect", { x: left + start * cell, y: top + row * cell, width: (end - start) * cell, height: cell, fill: rgb(value / 32) }));
    }
    if (named) svg.append(draw("text", { x: left - 6, y: top + row * cell + cell / 2 + 4, "text-anchor": "end" }, shorten(visible(matrix.queryName(matrix.rowStart(row))), 14)));
  }
  for (let column = 0; named && column < columns; column++) {
    svg.append(draw("text", { transform: `translate(${left + column * cell + cell / 2 + 4} ${top - 6}) rotate(-90)` }, shorten(visible(matrix.keyName(matrix.columnStart(column))), 14)));
  }
  return svg;
}

function saveFigure(svg, name) {
  const address = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" }));
  make("a", { href: address, download: `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-") || "attention"}.svg` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
