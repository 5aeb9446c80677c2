// One head on one example: with every weight, with blocks and the strongest keys of each query, or with blocks alone. Cells are
// what a level stores; rows and columns of an example count tokens.
import { unpack } from "./decode.js";
import { describe, percent, quote, strongest } from "./words.js";

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

// A function of the row and column of a cell: w = scale (q / steps)^2.
export function readCells(level, packed, head) {
  const { tile, columns } = level, across = Math.ceil(columns / tile), scale = packed.scale[head] / packed.steps ** 2;
  let current = -1, bytes = null, wide = 0;
  return (row, column) => {
    const left = Math.floor(column / tile), index = Math.floor(row / tile) * across + left;
    // Cells are mostly read one after another.
    if (index !== current) [current, bytes, wide] = [index, tileOf(level, packed, head, index), Math.min(tile, columns - left * tile)];
    const root = bytes[(row % tile) * wide + (column % tile)];
    return scale * root * root;
  };
}

// Number `index` of an array of little-endian numbers of 2 or 4 bytes.
const integer = (data, bytes, index) => data[bytes * index] + 256 * data[bytes * index + 1] +
  (bytes === 4 ? 65536 * data[bytes * index + 2] + 16777216 * data[bytes * index + 3] : 0);

// A function of a query: the number of keys that it may attend to, as far as the mask is known.
function readPermitted({ permitted, rows, columns }, number) {
  if (!permitted) return () => columns;
  const counts = unpack(permitted[Math.min(number, permitted.length - 1)], 4 * rows);
  return (query) => integer(counts, 4, query);
}

// Cells of a level are missing where a weight of one of their queries is: `bytes` is 1 for each query whose weights are.
function leaveGaps(read, bytes, rowStart) {
  const gaps = [], hasGap = (row) => bytes.subarray(rowStart(row), rowStart(row + 1)).includes(1);
  return (row, column) => ((gaps[row] = gaps[row] ?? hasGap(row)) ? NaN : read(row, column));
}

// A query without finite weights reads nothing that could be said.
function withoutMissing(head, bytes) {
  const { columns, weight, weights, row, top, tell } = head;
  return Object.assign(head, {
    weight: (query, key) => (bytes[query] ? NaN : weight(query, key)),
    weights: weights && ((query) => (bytes[query] ? new Float32Array(columns).fill(NaN) : weights(query))),
    row: (query) => (bytes[query] ? () => NaN : row(query)),
    top: (query, most) => (bytes[query] ? { entries: [], rest: 0 } : top(query, most)),
    tell: (query, key) => (bytes[query] ? `${head.reads(query)}: weights that are not finite` : tell(query, key)),
  });
}

export function readHead(view, example, number) {
  const { rows, columns, levels, grid, top } = example, finest = levels[levels.length - 1];
  const missing = example.missing ? unpack(example.missing[number], rows) : null;
  const keys = view.tokens[example.keys] ?? null;
  const queries = view.tokens[example.queries] ?? (rows === columns ? keys : null);
  const queryName = (token) => queries?.[token] ?? `#${token + 1}`, keyName = (token) => keys?.[token] ?? `#${token + 1}`;
  // Of a head with keys the strongest keys of each query are known, and shown by their names. `reads` begins a line about a query.
  const head = { example, number, rows, columns, queries, keys, queryName, keyName, permitted: readPermitted(example, number), most: finest.maxima.scale[number] || 1,
    isExact: finest.rows === rows && finest.columns === columns, hasKeys: true, isSquare: rows === columns && example.queries === null && rows > 1,
    reads: (query) => `${quote(queryName(query))} reads`, entryName: keyName, entryOf: (key) => key };

  // A level by the number of cells that a window of tokens may have at most: the finest that fits, else the coarsest. A cell of it
  // joins 2^shift of the blocks of the grid along both axes.
  head.level = (tokens, total, most) => {
    const index = levels.findLastIndex(({ shift }) => (tokens * grid[total]) / head[total] / 2 ** shift <= most);
    const level = levels[Math.max(index, 0)], { shift } = level, rowStart = (cell) => startOf(Math.min(cell << shift, grid.rows), grid.rows, rows);
    const read = (packed) => (missing ? leaveGaps(readCells(level, packed, number), missing, rowStart) : readCells(level, packed, number));
    return { ...level, rowStart, maximum: read(level.maxima), mean: level.means && read(level.means),
      rowOf: (token) => cellOf(token, grid.rows, rows) >> shift, columnOf: (token) => cellOf(token, grid.columns, columns) >> shift,
      columnStart: (cell) => startOf(Math.min(cell << shift, grid.columns), grid.columns, columns) };
  };
  Object.assign(head, head.isExact ? everyKey(head, finest) : top ? strongestKeys(head) : blocksAlone(head));
  return missing ? withoutMissing(head, missing) : head;
}

function everyKey(head, level) {
  const cell = readCells(level, level.maxima, head.number);
  const weights = (query) => Float32Array.from({ length: head.columns }, (_, key) => cell(query, key));
  return {
    weights,
    weight: cell,
    row: (query) => {
      const values = weights(query);
      return (key) => values[key];
    },
    top: (query, most) => {
      const values = weights(query), order = strongest(values, most);
      const total = values.reduce((sum, value) => sum + value, 0), shown = order.reduce((sum, key) => sum + values[key], 0);
      return { entries: order.map((key) => [key, values[key]]), rest: Math.max(0, total - shown) };
    },
    tell: (query, key) => {
      // The rank compares numbers of one precision.
      const values = weights(query);
      return (head.rows > 1 ? `${head.reads(query)} ` : "") + describe(head.keyName(key), values[key], values, head.permitted(query));
    },
  };
}

const numbersOf = (start, end) => (end - start < 2 ? `#${end}` : `#${start + 1} to #${end}`);

// The finest blocks, each with the tokens from its first to its last.
function readBlocks(head) {
  const finest = head.level(1, "rows", Infinity), { mean } = finest;
  const span = (names, name, start, end) => {
    if (end - start < 2) return quote(name(start));
    return names ? `${quote(name(start))} to ${quote(name(end - 1))} (${numbersOf(start, end)})` : numbersOf(start, end);
  };
  const queries = (block) => span(head.queries, head.queryName, finest.rowStart(block), finest.rowStart(block + 1));
  const keys = (block) => span(head.keys, head.keyName, finest.columnStart(block), finest.columnStart(block + 1));
  return { mean, finest, queries, keys,
    tell: (query, key) => {
      const down = finest.rowOf(query), across = finest.columnOf(key), isOne = finest.rowStart(down + 1) - finest.rowStart(down) < 2;
      return `${queries(down)} ${isOne ? "reads" : "read"} ${keys(across)}: ${percent(mean(down, across))} on average, ${percent(finest.maximum(down, across))} at most`;
    } };
}

function strongestKeys(head) {
  const { number, example, rows } = head, { top } = example, blocks = readBlocks(head);
  const read = (name, bytes, perQuery) => {
    top.decoded = top.decoded ?? {};
    top.decoded[`${name}/${number}`] = top.decoded[`${name}/${number}`] ?? unpack(top[name][number], rows * perQuery * bytes);
    return top.decoded[`${name}/${number}`];
  };
  const width = top.wide ? 4 : 2, scale = top.scale[number] / 65025;
  const entriesOf = (query) => {
    const keys = read("keys", width, top.count), levels = read("weights", 1, top.count), entries = [];
    for (let rank = query * top.count; rank < (query + 1) * top.count; rank++) {
      if (levels[rank]) entries.push([integer(keys, width, rank), scale * levels[rank] * levels[rank]]);
    }
    return entries;
  };
  return {
    weights: null,
    weight: (query, key) => entriesOf(query).find(([index]) => index === key)?.[1] ?? 0,
    row: (query) => {
      const known = new Map(entriesOf(query));
      return (key) => known.get(key) ?? 0;
    },
    top: (query, most) => {
      const entries = entriesOf(query), rest = integer(read("rest", 2, 1), 2, query) / 65535;
      return { entries: entries.slice(0, most), rest: rest + entries.slice(most).reduce((sum, [, value]) => sum + value, 0) };
    },
    tell: (query, key) => {
      const known = entriesOf(query).find(([index]) => index === key);
      return known ? `${head.reads(query)} ${quote(head.keyName(key))}: ${percent(known[1])} of the attention` : blocks.tell(query, key);
    },
  };
}

// Where the page has no room for the keys of each query: the queries of a block together, and what they read of each block of keys.
function blocksAlone(head) {
  const { mean, finest, tell } = readBlocks(head);
  const weight = (query, key) => mean(finest.rowOf(query), finest.columnOf(key));
  return {
    hasKeys: false, weights: null, weight, tell,
    reads: (query) => `${numbersOf(finest.rowStart(finest.rowOf(query)), finest.rowStart(finest.rowOf(query) + 1))} read`,
    entryName: (key) => numbersOf(finest.columnStart(finest.columnOf(key)), finest.columnStart(finest.columnOf(key) + 1)),
    entryOf: (key) => finest.columnStart(finest.columnOf(key)),
    row: (query) => {
      const down = finest.rowOf(query);
      return (key) => mean(down, finest.columnOf(key));
    },
    top: (query, most) => {
      const down = finest.rowOf(query);
      const shares = Array.from({ length: finest.columns }, (_, block) => mean(down, block) * (finest.columnStart(block + 1) - finest.columnStart(block)));
      const order = strongest(shares, most), shown = new Set(order);
      return { entries: order.map((block) => [finest.columnStart(block), shares[block]]), rest: shares.reduce((sum, share, block) => sum + (shown.has(block) ? 0 : share), 0) };
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
