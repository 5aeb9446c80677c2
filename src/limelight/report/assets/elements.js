// Elements made from text, never from markup.
import { percent, signed, visible } from "./words.js";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

export const SVG = "http://www.w3.org/2000/svg";
export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// A name that may be broken after its slashes and underscores.
export const breakable = (text) => text.split(/(?<=[/_])/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));

// The colors of the page, for what is drawn; figures that are saved have those of a light page.
export function readColors(node) {
  const style = getComputedStyle(node), color = (name) => style.getPropertyValue(name).trim();
  return { ink: style.color, soft: color("--soft"), faint: color("--faint"), accent: color("--accent"), lamp: color("--lamp"),
    paper: color("--paper"), kinds: [0, 1, 2, 3, 4, 5, 6, 7].map((kind) => color(`--kind-${kind}`)), font: style.fontFamily };
}

export const LIGHT = { ink: "#1b1a18", soft: "#5f5b54", faint: "#c9c3b8", accent: "#c04a00", lamp: "#f5b800", paper: "#ffffff",
  kinds: ["#0072b2", "#d98a00", "#00855f", "#c9520a", "#b85f95", "#2f93cc", "#8a7d00", "#6b6b6b"], font: "system-ui, sans-serif" };

// Bars from the strongest down, each with its token and its value, and where it matters the rest that they leave out.
// `entries` are pairs of an index and a value; values may be negative if `isSigned`.
export function ranking(entries, name, { caption, current = -1, onpick = null, rest = 0, isSigned = false }) {
  if (!entries.length) return [];
  const most = Math.max(...entries.map(([, value]) => Math.abs(value))) || 1;
  const rows = entries.map(([index, value]) => {
    const bar = make("i", { class: value < 0 ? "bar negative" : "bar" });
    bar.style.width = `${100 * Math.abs(value) / most}%`;
    const text = visible(name(index)), label = onpick ? make("button", { class: "token", type: "button", onclick: () => onpick(index) }, text) : text;
    return make("tr", { class: index === current ? "current" : null },
      make("th", { scope: "row", dir: "auto" }, label), make("td", {}, bar), make("td", { class: "number" }, isSigned ? signed(value) : percent(value)));
  });
  // Ignore the rounding error of 8 bits.
  const left = rest > 0.005 ? make("p", { class: "note" }, `Not shown: ${percent(rest)}, on other tokens`) : null;
  return [make("table", { class: "ranking" }, make("caption", {}, caption), make("tbody", {}, rows)), left].filter(Boolean);
}
