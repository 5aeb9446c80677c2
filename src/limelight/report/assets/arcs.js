// Queries left, keys right, and a curve for each strong weight between them: of a long text the part around the current token.
import { draw, make } from "./elements.js";
import { fit, percent, shorten, visible } from "./words.js";
import { windowAround } from "./matrix.js";

const STEP = 21;
const MOST_TOKENS = 40;
const MOST_CURVES = 400;

// The parts of queries and keys that are drawn, and their weights, the weakest first.
export function chooseCurves(head, row, before) {
  const queries = windowAround(row, head.rows, MOST_TOKENS, before?.queries);
  const center = head.isSquare ? row : head.top(row, 1).entries[0]?.[0] ?? 0;
  const keys = head.isSquare ? queries : windowAround(center, head.columns, MOST_TOKENS, before?.keys);
  const curves = [];
  for (let query = queries.start; query < queries.start + queries.count; query++) {
    for (const [key, weight] of head.hasKeys ? head.top(query, 64).entries : []) {
      if (key >= keys.start && key < keys.start + keys.count) curves.push({ query, key, weight });
    }
  }
  curves.sort((one, other) => one.weight - other.weight);
  return { queries, keys, curves: curves.filter(({ query }, index) => query === row || index >= curves.length - MOST_CURVES) };
}

export function drawArcs(head, { row, column, pinned }, choice, width, colors, top = 0) {
  const { queries, keys, curves } = choice, most = Math.max(...curves.map(({ weight }) => weight), 1e-9), names = Math.min(150, width * 0.3);
  const left = names + 10, right = width - names - 10, y = (part, token) => top + 30 + (token - part.start) * STEP;
  const height = top + 40 + Math.max(queries.count, keys.count) * STEP;
  // Many curves are fainter, so that they do not hide each other.
  const fade = Math.min(1, 80 / curves.length), bend = (right - left) / 2, pen = make("canvas").getContext("2d");
  pen.font = `700 13px ${colors.font}`;
  const lines = curves.map(({ query, key, weight }) => {
    const own = query === row, from = y(queries, query), to = y(keys, key);
    const opacity = own ? 0.25 + 0.75 * Math.sqrt(weight / most) : (pinned >= 0 ? 0.15 : 0.6) * fade * Math.sqrt(weight / most);
    return draw("path", { d: `M${left} ${from}C${left + bend} ${from} ${right - bend} ${to} ${right} ${to}`, fill: "none", stroke: own ? colors.accent : colors.soft,
      "stroke-width": (0.6 + (own ? 5 : 3) * weight / most).toFixed(2), "stroke-opacity": opacity.toFixed(3) });
  });
  const word = (part, side, token, text, current) => draw("text", { x: side === "query" ? names : right + 10, y: y(part, token) + 4, "text-anchor": side === "query" ? "end" : "start",
    [`data-${side}`]: token, "font-size": 13, fill: current ? colors.accent : colors.ink, "font-weight": current ? 700 : 400 }, fit(shorten(visible(text), 30), names, (part) => pen.measureText(part).width));
  const span = (part) => Array.from({ length: part.count }, (_, index) => part.start + index);
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "font-family": colors.font, "aria-hidden": "true" },
    draw("text", { x: names, y: top + 10, "text-anchor": "end", fill: colors.soft, "font-size": 12 }, "reads"),
    draw("text", { x: right + 10, y: top + 10, fill: colors.soft, "font-size": 12 }, "is read"), lines,
    span(queries).map((token) => word(queries, "query", token, head.queryName(token), token === row)),
    span(keys).map((token) => word(keys, "key", token, head.keyName(token), token === column)));
}

// What the curves of a row leave out.
export function describeArcs(head, row, { queries, keys, curves }) {
  const shown = curves.filter(({ query }) => query === row).reduce((sum, { weight }) => sum + weight, 0);
  const { entries, rest } = head.top(row, 64), left = entries.reduce((sum, [, weight]) => sum + weight, rest) - shown;
  const part = queries.count < head.rows || keys.count < head.columns ? `Tokens ${keys.start + 1} to ${keys.start + keys.count} of ${head.columns}. ` : "";
  return `${part}${left > 0.005 ? `Not drawn of the current token: ${percent(left)}.` : ""}`;
}
