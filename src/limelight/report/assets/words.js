// Numbers, names and colors: nothing here touches the page.

export const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
export const shorten = (text, most) => {
  const letters = Array.from(text.slice(0, 4 * most));
  return letters.length > most || text.length > 4 * most ? letters.slice(0, most - 1).join("") + "…" : text;
};

// A text shortened until it is at most so wide.
export function fit(text, room, widthOf) {
  let fitted = text;
  while (widthOf(fitted) > room && Array.from(fitted).length > 2) fitted = shorten(fitted, Array.from(fitted).length - 1);
  return fitted;
}

export function percent(share) {
  const value = 100 * share;
  if (Number.isNaN(value)) return "missing";
  if (!(value > 0)) return "0\u202f%";
  if (value < 0.01) return "< 0.01\u202f%";
  // Nearly all is not all.
  if (value >= 99.95 && value < 100) return "> 99.9\u202f%";
  return `${value.toFixed(value < 0.095 ? 2 : value < 9.95 || (value >= 99.5 && value < 100) ? 1 : 0)}\u202f%`;
}

export function ordinal(number) {
  const rest = number % 100;
  const ending = rest > 10 && rest < 14 ? "th" : ["th", "st", "nd", "rd"][number % 10] ?? "th";
  return `${number}${ending}`;
}

// A number with its sign and two significant digits.
export function signed(number) {
  const size = Math.abs(number);
  const digits = size === 0 ? "0" : size >= 1000 || size < 0.001 ? size.toExponential(1) : size >= 100 ? size.toFixed(0) : size.toPrecision(2);
  return `${number < 0 ? "−" : "+"}${digits}`;
}

// Make visible what a reader would not see, or what would turn the text around: spaces, line ends, control and bidi characters.
const HIDDEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const MOST_LETTERS = 120;
export const visible = (token) => shorten(token, MOST_LETTERS).replace(/\n/g, "↵").replace(/^[^\S↵]+$/, "␣")
  .replace(HIDDEN, (character) => `⟨${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`) || "∅";

// Letters that are written from right to left would take along what stands beside them in a sentence, unless they are isolated.
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
export const isolate = (text) => (RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text);
export const quote = (token) => `“${isolate(visible(token))}”`;

// The shade of a token, 0 to 8: 2 is its equal share of the attention, two more for each doubling.
export function shade(weight, count) {
  const times = weight * count;
  return times > 0 ? clamp(Math.round(2 * (Math.log2(times) + 1)), 0, 8) : 0;
}

// `count` is the number of keys that the query may attend to.
export function describe(token, weight, weights, count = weights.length) {
  const rank = 1 + weights.reduce((above, other) => above + (other > weight ? 1 : 0), 0);
  const times = weight * count, share = `${quote(token)}: ${percent(weight)} of the attention`;
  // A masked key comes after all others.
  return rank > count ? share : `${share}, ${times.toFixed(times < 9.95 ? 1 : 0)} times its equal share, ${ordinal(rank)} of ${count}`;
}

export const strongest = (weights, most) =>
  Array.from(weights.keys()).sort((one, other) => weights[other] - weights[one] || one - other).slice(0, most);

// The next name that contains a text, from a place on and around the end; -1 if none does.
export function findName(names, text, from) {
  const wanted = text.trim().toLowerCase();
  for (let step = 0; wanted && step < names.length; step++) {
    const index = (from + step) % names.length;
    if (names[index].toLowerCase().includes(wanted)) return index;
  }
  return -1;
}

const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"].map((hex) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

export function viridis(share) {
  const place = clamp(share, 0, 1) * (VIRIDIS.length - 1), low = Math.floor(place), high = Math.min(low + 1, VIRIDIS.length - 1);
  return VIRIDIS[low].map((value, channel) => Math.round(value + (place - low) * (VIRIDIS[high][channel] - value)));
}

export const rgb = (share) => `rgb(${viridis(share).join(" ")})`;
