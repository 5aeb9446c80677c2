// The modules of the page that touch no document: weights against those that Python packed, state, names, layout.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import zlib from "node:zlib";

const load = (name) => import(`../../src/limelight/report/assets/${name}`);
const { unpack } = await load("decode.js");
const words = await load("words.js");
const { cellOf, readCells, readHead, readRanking, startOf } = await load("heads.js");
const { PAGE, readState, VIEWER, writeState } = await load("state.js");
const { chooseCurves, describeArcs } = await load("arcs.js");
const { summarizeSteps } = await load("lines.js");
const { windowAround } = await load("matrix.js");
const { cutNames, measureHeads, shortNames } = await load("grid.js");

// What the test in Python wrote: documents of views, and the weights that they were made from.
const cases = JSON.parse(readFileSync(process.env.LIMELIGHT_CASES, "utf-8"));
const close = (actual, expected, tolerance) => assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not ${expected}`);

test("every kind of deflate block is decoded", () => {
  const random = (count, most, start = 7) => {
    let state = start;
    return Uint8Array.from({ length: count }, () => ((state = (state * 1103515245 + 12345) & 0x7fffffff) >> 8) % most);
  };
  const contents = [new Uint8Array(), Uint8Array.of(7), Buffer.from("ab".repeat(20011)), random(70001, 3), random(70001, 256),
    Uint8Array.from([...random(700, 90)].flatMap((count, index) => Array(count).fill(index % 251)))];
  const forms = [{ level: 0 }, { level: 1 }, { level: 9 }, { level: 9, strategy: zlib.constants.Z_FIXED }, { level: 9, strategy: zlib.constants.Z_HUFFMAN_ONLY }];
  for (const content of contents) {
    for (const form of forms) {
      const packed = zlib.deflateSync(content, form).toString("base64");
      assert.deepEqual(Buffer.from(unpack(packed, content.length)), Buffer.from(content));
    }
  }
});

test("the cells of a level cover all tokens in order", () => {
  for (const [count, total] of [[7, 7], [4, 11], [512, 1031], [1, 9]]) {
    for (let token = 0; token < total; token++) {
      const cell = cellOf(token, count, total);
      assert.ok(startOf(cell, count, total) <= token && token < startOf(cell + 1, count, total));
    }
  }
});

test("every weight is that of the map", () => {
  const { document, weights } = cases.exact, example = document.sets[0].maps[0].examples[0];
  weights.forEach((rows, number) => {
    const head = readHead(document, example, number);
    assert.equal(head.isExact, true);
    rows.forEach((row, query) => {
      const most = Math.max(...rows.flat());
      row.forEach((weight, key) => close(Math.sqrt(head.weight(query, key) / most), Math.sqrt(weight / most), 0.51 / 255));
      const { entries, rest } = head.top(query, 3), sorted = [...row].sort((one, other) => other - one);
      entries.forEach(([key, weight], rank) => {
        close(weight, row[key], 0.01);
        close(weight, sorted[rank], 0.01);
      });
      close(rest, sorted.slice(3).reduce((sum, weight) => sum + weight, 0), 0.03);
    });
  });
});

test("levels of a long map hold the means and maxima of their blocks", () => {
  const { document, weights } = cases.long, example = document.sets[0].maps[0].examples[0], head = readHead(document, example, 0);
  assert.equal(head.isExact, false);
  assert.ok(example.levels.length > 1);
  for (const most of [4096, 300]) {
    const level = head.level(head.rows, "rows", most);
    for (const [row, column] of [[0, 0], [level.rows - 1, level.columns - 1], [level.rows >> 1, level.columns >> 2]]) {
      const block = weights[0].slice(level.rowStart(row), level.rowStart(row + 1)).flatMap((line) => line.slice(level.columnStart(column), level.columnStart(column + 1)));
      close(level.maximum(row, column), Math.max(...block), 0.006);
      close(readCells(level, level.means, 0)(row, column), block.reduce((sum, value) => sum + value, 0) / block.length, 0.006);
      assert.equal(level.rowOf(level.rowStart(row)), row);
      assert.equal(level.columnOf(level.columnStart(column)), column);
    }
  }
  const query = 300, { entries, rest } = head.top(query, 16), sorted = weights[0][query].map((weight, key) => [key, weight]).sort((one, other) => other[1] - one[1]);
  entries.slice(0, 3).forEach(([key, weight], rank) => {
    assert.equal(key, sorted[rank][0]);
    close(weight, sorted[rank][1], 0.006);
  });
  close(rest, sorted.slice(16).reduce((sum, [, weight]) => sum + weight, 0), 1e-4);
  assert.match(head.tell(query, sorted[0][0]), /^“#301” reads “.*”: .*% of the attention$/);
  assert.match(head.tell(query, sorted.at(-1)[0]), /on average, .* at most$/);
});

test("an equal share is that of the keys that a query may attend to", () => {
  const { document } = cases.masked, example = document.sets[0].maps[0].examples[0], head = readHead(document, example, 1);
  assert.deepEqual([head.rows, head.permitted(0), head.permitted(5)], [12, 0, 9]);
  close(Math.exp(example.entropy[1]), 9, 0.01);
  assert.equal(head.tell(5, 4), "“w5” reads “w4”: 11\u202f% of the attention, 1.0 times its equal share, 1st of 9");
  assert.equal(head.tell(5, 1), "“w5” reads “w1”: 0\u202f% of the attention");
  assert.equal(words.describe("a", 0.5, [0.5, 0.25, 0.25]), "“a”: 50\u202f% of the attention, 1.5 times its equal share, 1st of 3");
});

test("weights that are not finite are missing, and no zeros", () => {
  for (const [name, hasTop] of [["exact", false], ["top", true], ["blocks", false]]) {
    const example = cases.gaps[name].sets[0].maps[0].examples[0], [whole, head] = [0, 1].map((number) => readHead(cases.gaps[name], example, number));
    assert.equal(head.isExact, name === "exact");
    assert.equal(Boolean(example.top), hasTop);
    assert.equal(example.entropy[1], null);
    assert.ok(Number.isNaN(head.weight(7, 3)) && Number.isNaN(head.row(7)(3)));
    assert.deepEqual(head.top(7, 3), { entries: [], rest: 0 });
    assert.match(head.tell(7, 3), /: weights that are not finite$/);
    const level = head.level(head.rows, "rows", Infinity), cell = level.rowOf(7), far = level.rowOf(0);
    assert.ok(Number.isNaN(level.maximum(cell, 0)) && (level.rows < head.rows || level.maximum(cell + 1, 0) >= 0));
    assert.ok(far === cell || level.maximum(far, 0) >= 0);
    assert.ok(whole.weight(7, 3) >= 0 && !whole.tell(7, 3).includes("finite"));
  }
  assert.equal(words.percent(NaN), "missing");
});

test("without room for the keys of each query blocks stand for them", () => {
  const { document } = cases.blocks, [rows] = cases.long.weights, example = document.sets[0].maps[0].examples[0], head = readHead(document, example, 0);
  assert.deepEqual([head.isExact, head.hasKeys, example.top, example.grid], [false, false, null, { rows: 300, columns: 300 }]);
  assert.deepEqual(example.levels.map(({ shift, rows: count, columns, maxima }) => [shift, count, columns, maxima.steps]), [[3, 38, 38, 63]]);
  const level = head.level(1, "rows", Infinity), query = 300, [first, next] = [level.rowStart(level.rowOf(query)), level.rowStart(level.rowOf(query) + 1)];
  assert.ok(first <= query && query < next);
  const read = (key) => rows.slice(first, next).reduce((sum, row) => sum + row[key], 0) / (next - first);
  const share = (block) => Array.from({ length: level.columnStart(block + 1) - level.columnStart(block) }, (_, index) => read(level.columnStart(block) + index)).reduce((sum, value) => sum + value, 0);
  const shares = Array.from({ length: 38 }, (_, block) => share(block)), order = shares.map((value, block) => [value, block]).sort(([one], [other]) => other - one);
  const { entries, rest } = head.top(query, 16);
  const most = example.levels[0].means.scale[0] * 41;
  entries.forEach(([key, value]) => {
    assert.equal(head.entryOf(key + 1), key);
    close(Math.sqrt(value / most), Math.sqrt(shares[level.columnOf(key)] / most), 0.51 / 63 + 0.01);
  });
  assert.equal(level.columnOf(entries[0][0]), order[0][1]);
  close(rest, 1 - entries.reduce((sum, [, value]) => sum + value, 0), 0.05);
  const key = entries[0][0] + 3, ends = [level.columnStart(level.columnOf(key)), level.columnStart(level.columnOf(key) + 1)];
  const block = rows.slice(first, next).flatMap((row) => row.slice(...ends));
  close(level.maximum(level.rowOf(query), level.columnOf(key)), Math.max(...block), 0.02);
  assert.equal(head.row(query)(key), head.weight(query, key));
  assert.equal(head.entryName(key), `#${ends[0] + 1} to #${ends[1]}`);
  assert.equal(head.reads(query), `#${first + 1} to #${next} read`);
  assert.ok(head.tell(query, key).startsWith(`#${first + 1} to #${next} read #${ends[0] + 1} to #${ends[1]}: `));
  assert.equal(chooseCurves(head, query).curves.length, 0);
});

test("rankings are those of the other method", () => {
  const { document, signed, scores } = cases.exact, example = document.sets[0].maps[0].examples[0];
  const [pairs, tokens] = example.rankings;
  assert.deepEqual([pairs.title, tokens.title], ["gradient x attention", "gradient x input"]);
  signed.forEach((rows, number) => rows.forEach((row, query) => {
    const order = row.map((value, key) => [key, value]).sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
    const ranked = readRanking(pairs, number, query, example.rows), most = Math.max(...rows.flat().map(Math.abs));
    assert.equal(ranked[0][0], order[0][0]);
    ranked.forEach(([key, value]) => close(value, row[key], 0.02 * most));
  }));
  const order = scores.map((value, key) => [key, value]).sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
  assert.deepEqual(readRanking(tokens, 0, 0, 1).slice(0, 2).map(([key]) => key), order.slice(0, 2).map(([key]) => key));
});

test("shades agree with those of Python", () => {
  const { weights, count, shades } = cases.shades;
  assert.deepEqual(weights.map((weight) => words.shade(weight, count)), shades);
});

test("percentages", () => {
  const shares = [0, 0.00005, 0.0005, 0.005, 0.0996, 0.123, 0.994, 0.9971, 0.9999, 1];
  const expected = ["0", "< 0.01", "0.05", "0.5", "10", "12", "99", "99.7", "> 99.9", "100"];
  assert.deepEqual(shares.map(words.percent), expected.map((share) => `${share}\u202f%`));
});

test("signed numbers", () => {
  assert.deepEqual([0, 0.5, -0.0321, 123.4, -4e-6].map(words.signed), ["+0", "+0.50", "−0.032", "+123", "−4.0e-6"]);
});

test("names show what would not be seen, and stay short", () => {
  assert.deepEqual(["", " ", "\n", "a\u0000b", "x\u202egnp.exe", "👩‍👩‍👧 ok"].map(words.visible), ["∅", "␣", "↵", "a⟨0000⟩b", "x⟨202E⟩gnp.exe", "👩‍👩‍👧 ok"]);
  assert.equal(Array.from(words.visible("x".repeat(10000))).length, 120);
  assert.equal(words.visible("<img src=x onerror=alert(1)>"), "<img src=x onerror=alert(1)>");
});

test("words written from right to left are isolated inside sentences", () => {
  const isolated = "“\u2068שלום\u2069”";
  assert.deepEqual(["שלום", "سلام", "film", "12", "𐤀"].map(words.quote), [isolated, "“\u2068سلام\u2069”", "“film”", "“12”", "“\u2068𐤀\u2069”"]);
  assert.equal(words.describe("שלום", 0.25, [0.25, 0.75]), `${isolated}: 25\u202f% of the attention, 0.5 times its equal share, 2nd of 2`);
  const { document } = cases.rightToLeft, head = readHead(document, document.sets[0].maps[0].examples[0], 0);
  assert.equal(head.reads(0), `${isolated} reads`);
  assert.equal(head.tell(0, 1), `${isolated} reads “film”: 75\u202f% of the attention, 1.5 times its equal share, 1st of 2`);
});

test("a name is found from a place on and around the end", () => {
  const names = ["a", "film", "Filmed", "b"];
  assert.deepEqual([words.findName(names, "FILM", 0), words.findName(names, "film", 2), words.findName(names, "film", 3), words.findName(names, "zz", 0), words.findName(names, " ", 0)], [1, 2, 1, -1, -1]);
});

test("state survives the address, and nonsense becomes the default", () => {
  const state = { ...VIEWER, map: 3, held: true, view: "arcs", zoom: 4 }, parameters = new URLSearchParams();
  writeState(parameters, { ...PAGE, find: "a&b=c #d" }, PAGE);
  writeState(parameters, state, VIEWER, "other.");
  assert.equal(parameters.get("other.map"), "3");
  const again = new URLSearchParams(parameters.toString());
  assert.deepEqual(readState(again, VIEWER, "other."), state);
  assert.deepEqual(readState(again, VIEWER), VIEWER);
  assert.equal(readState(again, PAGE).find, "a&b=c #d");
  const hostile = new URLSearchParams("map=1e9&row=99999999999999&head=x&held=yes&view=%3Cscript%3E&zoom=-1");
  assert.deepEqual(readState(hostile, VIEWER), { ...VIEWER, view: "<script>", zoom: -1 });
});

test("a window holds the current token and moves as little as it must", () => {
  const first = windowAround(50, 100, 10);
  assert.deepEqual(first, { start: 45, count: 10 });
  assert.deepEqual(windowAround(54, 100, 10, first), first);
  assert.deepEqual(windowAround(55, 100, 10, first), { start: 46, count: 10 });
  assert.deepEqual(windowAround(99, 100, 10, first), { start: 90, count: 10 });
  assert.deepEqual(windowAround(3, 5, 10), { start: 0, count: 5 });
});

test("arcs keep every curve of the current token and say what they leave out", () => {
  const { document, weights } = cases.exact, head = readHead(document, document.sets[0].maps[0].examples[0], 1);
  const choice = chooseCurves(head, 2);
  assert.equal(choice.curves.filter(({ query }) => query === 2).length, weights[1][2].filter((weight) => weight > 0).length);
  assert.equal(describeArcs(head, 2, choice), "");
  const { document: long } = cases.long, longHead = readHead(long, long.sets[0].maps[0].examples[0], 0);
  assert.match(describeArcs(longHead, 300, chooseCurves(longHead, 300)), /^Tokens \d+ to \d+ of \d+\. Not drawn of the current token: /);
});

test("steps are summarized by their extremes", () => {
  const { weights, ranges } = summarizeSteps((step) => step / 10, [[1, 5, null, 2, 7, 3]], 6, 3);
  assert.deepEqual(Array.from(weights, (value) => Number(value.toFixed(2))), [0.1, 0.3, 0.5]);
  assert.deepEqual(ranges, [[[1, 5], [2, 2], [3, 7]]]);
});

test("layers are named without the folders that they share", () => {
  assert.deepEqual(shortNames(["encoder/block_1/attention", "encoder/block_2/attention"]), ["block_1", "block_2"]);
  assert.deepEqual(shortNames(["encoder/a", "pooling"]), ["encoder/a", "pooling"]);
  assert.deepEqual(shortNames(["encoder/a"]), ["encoder/a"]);
  assert.deepEqual(shortNames(["encoder/a", "encoder/a"]), ["a", "a"]);
  assert.deepEqual(shortNames(["a/attention/softmax", "b/softmax"]), ["a/attention", "b"]);
});

test("long names of layers are cut where they do not differ", () => {
  assert.deepEqual(cutNames(["encoder/attention_1", "encoder/attention_2", "attention"], 12), ["enc…ention_1", "enc…ention_2", "attention"]);
  assert.deepEqual(cutNames(["transformer_layer_10/self_attention", "transformer_layer_11/self_attention"], 12), ["tra…10/self…", "tra…11/self…"]);
  assert.deepEqual(cutNames(["first_attention_layer", "second_attention_layer", "exactly_12_l"], 12), ["first_atten…", "second_atte…", "exactly_12_l"]);
  assert.deepEqual(cutNames(["a_layer_of_attention", "a_layer_of_attention"], 12), ["a_layer_of_…", "a_layer_of_…"]);
});

test("heads are measured by what there is", () => {
  const [map] = cases.exact.document.sets[0].maps;
  assert.equal(measureHeads(map, 0, "entropy").length, map.heads);
  assert.deepEqual(measureHeads(map, 0, "importance"), cases.exact.importance);
  assert.ok(measureHeads(map, 0, "drift").every((value) => value === null));
});
