// The state of the page, which the address keeps: texts, folds, and one selection for each viewer.

export const PAGE = { kind: "", find: "", example: -1, token: -1, pinned: false, open: "" };
export const VIEWER = { set: 0, other: -1, map: 0, text: 0, head: 0, row: 0, column: 0, held: false, measure: "entropy", view: "", zoom: 1 };

// The values of an address by the names of the defaults; what is no number or is missing is the default.
export function readState(parameters, defaults, prefix = "") {
  const state = {};
  for (const [name, initial] of Object.entries(defaults)) {
    const value = parameters.get(prefix + name);
    if (value === null) state[name] = initial;
    else if (typeof initial === "number") state[name] = /^-?\d{1,9}$/.test(value) ? Number(value) : initial;
    else state[name] = typeof initial === "boolean" ? value === "1" : value;
  }
  return state;
}

export function writeState(parameters, state, defaults, prefix = "") {
  for (const [name, initial] of Object.entries(defaults)) {
    if (state[name] !== initial) parameters.set(prefix + name, typeof initial === "boolean" ? "1" : String(state[name]));
  }
}
