// One head on one example, with every weight or with blocks and the strongest keys. Cells are what a level stores; rows and
// columns of an example count tokens.
import { unpack } from "./decode.js";
import { describe, percent, strongest, visible } from "./words.js";

// Token `token` of `total` lies in this one of `count` blocks of nearly equal size, and a block begins at this token.
export const cellOf = (token, count, total) => Math.floor(((token + 1) * count - 1) / total);
export const startOf = (cell, count, total) => Math.floor((cell * total) / count);

// The bytes of one tile; they are decoded when they are first needed.
function tileOf(level, packed, head, index) {
  packed.decoded = packed.decoded ?? new Map();
  const key = head * packed.tiles[head].length + index;
  let bytes = packed.decoded.get(key);
  if (!bytes) {
    const across = Math.ceil(level.columns / level.tile), down = Math.floor(index / across);
    const wide = Math.min(level.tile, level.columns - (index % across) * level.tile), high = Math.min(level.tile, level.rows - down * level.tile);
    bytes = unpack(packed.tiles[head][index], wide * high);
    packed.decoded.set(key, bytes);
  }
  return bytes;
}

// A function of the row and column of a cell: w = scale (q / 255)^2.
export function readCells(level, packed, head) {
  const { tile, columns } = level, across = Math.ceil(columns / tile), scale = packed.scale[head] / 65025;
  return (row, column) => {
    const left = Math.floor(column / tile), index = Math.floor(row / tile) * across + left;
    const level8 = tileOf(level, packed, head, index)[(row % tile) * Math.min(tile, columns - left * tile) + (column % tile)];
    return scale * level8 * level8;
  };
}

export function readHead(view, example, number) {
  const { rows, columns, levels, top } = example, finest = levels[levels.length - 1];
  const keys = view.tokens[example.keys] ?? null;
  const queries = view.tokens[example.queries] ?? (rows === columns ? keys : null);
  const queryName = (token) => queries?.[token] ?? `#${token + 1}`, keyName = (token) => keys?.[token] ?? `#${token + 1}`;
  const head = { example, number, rows, columns, queries, keys, queryName, keyName, isExact: !top, most: finest.maxima.scale[number] || 1,
    isSquare: rows === columns && example.queries === null && rows > 1 };

  // A level by the number of cells that a window of tokens may have at most: the finest that fits, else the coarsest.
  head.level = (tokens, total, most) => {
    const shifts = levels.map((_, index) => levels.length - 1 - index);
    const index = shifts.findLastIndex((shift) => (tokens * finest[total]) / head[total] / 2 ** shift <= most);
    const shift = shifts[Math.max(index, 0)], level = levels[Math.max(index, 0)];
    return { ...level, maximum: readCells(level, level.maxima, number),
      rowOf: (token) => cellOf(token, finest.rows, rows) >> shift, columnOf: (token) => cellOf(token, finest.columns, columns) >> shift,
      rowStart: (cell) => startOf(Math.min(cell << shift, finest.rows), finest.rows, rows),
      columnStart: (cell) => startOf(Math.min(cell << shift, finest.columns), finest.columns, columns) };
  };
  return Object.assign(head, top ? strongestKeys(head, finest) : everyKey(head, finest));
}

function everyKey(head, level) {
  const cell = readCells(level, level.maxima, head.number);
  const weights = (query) => Float32Array.from({ length: head.columns }, (_, key) => cell(query, key));
  return {
    weights,
    weight: cell,
    top: (query, most) => {
      const values = weights(query), order = strongest(values, most);
      const total = values.reduce((sum, value) => sum + value, 0), shown = order.reduce((sum, key) => sum + values[key], 0);
      return { entries: order.map((key) => [key, values[key]]), rest: Math.max(0, total - shown) };
    },
    tell: (query, key) => (head.rows > 1 ? `“${visible(head.queryName(query))}” reads ` : "") +
      describe(head.keyName(key), cell(query, key), weights(query)),
  };
}

function strongestKeys(head, finest) {
  const { number, example, rows, columns } = head, { top } = example;
  const read = (name, bytes, perQuery) => {
    top.decoded = top.decoded ?? {};
    top.decoded[`${name}/${number}`] = top.decoded[`${name}/${number}`] ?? unpack(top[name][number], rows * perQuery * bytes);
    return top.decoded[`${name}/${number}`];
  };
  const integer = (data, bytes, index) => data[bytes * index] + 256 * data[bytes * index + 1] +
    (bytes === 4 ? 65536 * data[bytes * index + 2] + 16777216 * data[bytes * index + 3] : 0);
  const width = top.wide ? 4 : 2, scale = top.scale[number] / 65025;
  const entriesOf = (query) => {
    const keys = read("keys", width, top.count), levels = read("weights", 1, top.count), entries = [];
    for (let rank = query * top.count; rank < (query + 1) * top.count; rank++) {
      if (levels[rank]) entries.push([integer(keys, width, rank), scale * levels[rank] * levels[rank]]);
    }
    return entries;
  };
  const mean = readCells(finest, finest.means, number), maximum = readCells(finest, finest.maxima, number);
  const span = (name, first, next) => (next - first > 1 ? `“${visible(name(first))}” to “${visible(name(next - 1))}”` : `“${visible(name(first))}”`);
  return {
    weights: null,
    weight: (query, key) => entriesOf(query).find(([index]) => index === key)?.[1] ?? 0,
    top: (query, most) => {
      const entries = entriesOf(query), rest = integer(read("rest", 2, 1), 2, query) / 65535;
      return { entries: entries.slice(0, most), rest: rest + entries.slice(most).reduce((sum, [, value]) => sum + value, 0) };
    },
    tell: (query, key) => {
      const known = entriesOf(query).find(([index]) => index === key);
      const reads = `“${visible(head.queryName(query))}” reads `;
      if (known) return `${reads}“${visible(head.keyName(key))}”: ${percent(known[1])} of the attention`;
      const down = cellOf(query, finest.rows, rows), across = cellOf(key, finest.columns, columns);
      return `${span(head.queryName, startOf(down, finest.rows, rows), startOf(down + 1, finest.rows, rows))} read ` +
        `${span(head.keyName, startOf(across, finest.columns, columns), startOf(across + 1, finest.columns, columns))}: ` +
        `${percent(mean(down, across))} on average, ${percent(maximum(down, across))} at most`;
    },
  };
}

// The strongest keys of a query by another measure than attention: pairs of a key and a signed value.
export function readRanking(ranking, head, query, rows) {
  if (ranking.shared) return ranking.keys.map((key, index) => [key, ranking.values[index]]);
  const { count } = ranking, scale = ranking.scale[head] / 16129;
  ranking.decoded = ranking.decoded ?? {};
  const [keys, values] = (ranking.decoded[head] = ranking.decoded[head] ?? [
    unpack(ranking.keys[head], 2 * rows * count), new Int8Array(unpack(ranking.values[head], rows * count).buffer)]);
  return Array.from({ length: count }, (_, rank) => query * count + rank).filter((index) => values[index]).map((index) =>
    [keys[2 * index] + 256 * keys[2 * index + 1], scale * values[index] * Math.abs(values[index])]);
}
