// A series as lines, with the weights of its steps as bars below them.
import { draw } from "./elements.js";
import { shorten, visible } from "./words.js";

const HEIGHT = 240;

export const short = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

// For each of `count` places along the axis the greatest weight, and the least and greatest value of each channel.
export function summarizeSteps(weightOf, channels, total, count) {
  const places = Math.min(total, count), weights = new Float32Array(places);
  const ranges = channels.map(() => Array.from({ length: places }, () => [Infinity, -Infinity]));
  for (let step = 0; step < total; step++) {
    const place = Math.floor((step * places) / total);
    weights[place] = Math.max(weights[place], weightOf(step));
    channels.forEach((values, channel) => {
      const value = values[step];
      if (value === null || value === undefined) return;
      const range = ranges[channel][place];
      range[0] = Math.min(range[0], value);
      range[1] = Math.max(range[1], value);
    });
  }
  return { weights, ranges };
}

export function drawLines(head, { row, column }, channels, width, colors, top = 0) {
  const left = 52, right = width - 8, bottom = top + HEIGHT - 30, high = bottom - top - 10, total = head.columns;
  const { weights, ranges } = summarizeSteps(head.row(row), channels, total, Math.max(1, Math.floor(right - left)));
  const count = weights.length, wide = (right - left) / count, most = Math.max(...weights) || 1;
  const finite = ranges.flat().filter(([low]) => Number.isFinite(low)), low = Math.min(...finite.map(([value]) => value)), upper = Math.max(...finite.map(([, value]) => value));
  const y = (value) => bottom - (upper > low ? (value - low) / (upper - low) : 0.5) * high, x = (place) => left + (place + 0.5) * wide;
  const bars = Array.from(weights, (weight, place) => [weight, place]).filter(([weight]) => weight > 0).map(([weight, place]) => draw("rect",
    { x: (x(place) - wide / 2).toFixed(2), y: (bottom - high * weight / most).toFixed(2), width: Math.max(wide - (wide > 3 ? 1 : 0), 0.5).toFixed(2), height: (high * weight / most).toFixed(2), fill: colors.lamp, "fill-opacity": channels.length ? 0.6 : 1 }));
  const curves = ranges.map((range, channel) => {
    const points = range.flatMap(([least, greatest], place) => !Number.isFinite(least) ? [] : least === greatest ? [[place, least]] : [[place, least], [place, greatest]]);
    return draw("polyline", { points: points.map(([place, value]) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`).join(" "), fill: "none", stroke: colors.kinds[channel % 8], "stroke-width": 1.75, "stroke-linejoin": "round" });
  });
  const at = (step) => left + ((step + 0.5) * (right - left)) / total;
  const rule = (step, color, dash) => draw("line", { x1: at(step), x2: at(step), y1: top + 6, y2: bottom, stroke: color, "stroke-dasharray": dash });
  const tick = (value, where) => draw("text", { x: left - 6, y: where, "text-anchor": "end", "font-size": 11, fill: colors.soft }, short(value));
  const name = (step, anchor) => draw("text", { x: anchor === "start" ? left : right, y: bottom + 18, "text-anchor": anchor, "font-size": 11, fill: colors.soft }, shorten(visible(head.keyName(step)), 24));
  return draw("svg", { viewBox: `0 0 ${width} ${top + HEIGHT}`, width, height: top + HEIGHT, "font-family": colors.font, "aria-hidden": "true" },
    bars, draw("line", { x1: left, x2: right, y1: bottom, y2: bottom, stroke: colors.faint }), curves,
    head.isSquare ? rule(row, colors.soft, "4 4") : null, rule(column, colors.accent, "none"),
    finite.length ? [tick(upper, y(upper) + 4), upper > low ? tick(low, y(low) + 4) : null] : null, name(0, "start"), name(total - 1, "end"));
}

// The step under the pointer.
export function stepAt(event, node, total) {
  const edge = node.getBoundingClientRect(), share = (event.clientX - edge.left - 52) / (edge.width - 60);
  return share >= 0 && share < 1 ? Math.floor(share * total) : -1;
}
