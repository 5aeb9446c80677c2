// Shared by all views: elements made from text, never from markup; numbers; colors.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const shorten = (text, most) => {
  const letters = Array.from(text);
  return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : text;
};

function percent(share) {
  const value = 100 * share;
  if (!(value > 0)) return "0\u202f%";
  if (value < 0.01) return "< 0.01\u202f%";
  // Nearly all is not all.
  if (value >= 99.95 && value < 100) return "> 99.9\u202f%";
  return `${value.toFixed(value < 0.095 ? 2 : value < 9.95 || (value >= 99.5 && value < 100) ? 1 : 0)}\u202f%`;
}

function ordinal(number) {
  const rest = number % 100;
  const ending = rest > 10 && rest < 14 ? "th" : ["th", "st", "nd", "rd"][number % 10] ?? "th";
  return `${number}${ending}`;
}

// Make spaces and line ends visible.
const visible = (token) => token.replace(/\n/g, "↵").replace(/^\s+$/, "␣") || "∅";

// The shade of a token, 0 to 8: 2 is its equal share of the attention, two more for each doubling.
function shade(weight, count) {
  const times = weight * count;
  return times > 0 ? clamp(Math.round(2 * (Math.log2(times) + 1)), 0, 8) : 0;
}

function describe(token, weight, weights) {
  const rank = 1 + weights.reduce((above, other) => above + (other > weight ? 1 : 0), 0);
  const times = weight * weights.length;
  return `“${visible(token)}”: ${percent(weight)} of the attention, ${times.toFixed(times < 9.95 ? 1 : 0)} times its equal share, ` +
    `${ordinal(rank)} of ${weights.length}`;
}

const strongest = (weights, most) =>
  Array.from(weights.keys()).sort((one, other) => weights[other] - weights[one] || one - other).slice(0, most);

const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"].map((hex) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

function viridis(share) {
  const place = clamp(share, 0, 1) * (VIRIDIS.length - 1), low = Math.floor(place), high = Math.min(low + 1, VIRIDIS.length - 1);
  return VIRIDIS[low].map((value, channel) => Math.round(value + (place - low) * (VIRIDIS[high][channel] - value)));
}

const rgb = (share) => `rgb(${viridis(share).join(" ")})`;

// Bars from the strongest down, each with its token and its weight, and where it matters the rest that they leave out.
function ranking(tokens, weights, most, { caption, current = -1, onpick = null, rest = true }) {
  const order = strongest(weights, most), top = weights[order[0]] || 1, other = 1 - order.reduce((sum, index) => sum + weights[index], 0);
  const rows = order.map((index) => {
    const bar = make("i", { class: "bar" });
    bar.style.width = `${100 * weights[index] / top}%`;
    const name = onpick ? make("button", { class: "token", onclick: () => onpick(index) }, visible(tokens[index])) : visible(tokens[index]);
    return make("tr", { class: index === current ? "current" : null },
      make("th", { scope: "row", dir: "auto" }, name), make("td", {}, bar), make("td", { class: "number" }, percent(weights[index])));
  });
  // Ignore the rounding error of 8 bits.
  const left = rest && other > 0.005 ? make("p", { class: "note" }, `Not shown: ${percent(other)}, on other tokens`) : null;
  return [make("table", { class: "ranking" }, make("caption", {}, caption), make("tbody", {}, rows)), left].filter(Boolean);
}
