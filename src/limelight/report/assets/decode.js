// From base64 to bytes: a zlib stream decoded synchronously in every browser, so that no view waits.

const LENGTH_BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
  8193, 12289, 16385, 24577];
const DISTANCE_EXTRA = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

// A table from the next bits of the stream to a symbol and the length of its code (RFC 1951, 3.2.2).
function codeTable(lengths) {
  const most = Math.max(...lengths, 1);
  const table = new Uint16Array(1 << most);
  let code = 0;
  for (let length = 1; length <= most; length++) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue;
      let reversed = 0;
      for (let bit = 0; bit < length; bit++) reversed |= ((code >> bit) & 1) << (length - 1 - bit);
      for (let index = reversed; index < table.length; index += 1 << length) table[index] = (symbol << 4) | length;
      code++;
    }
    code <<= 1;
  }
  return { table, most };
}

function inflate(source, size) {
  const out = new Uint8Array(size);
  let position = 2, written = 0, bits = 0, bitCount = 0;
  const fill = (count) => {
    for (; bitCount < count; bitCount += 8) bits |= source[position++] << bitCount;
  };
  const take = (count) => {
    fill(count);
    const value = bits & ((1 << count) - 1);
    bits >>>= count;
    bitCount -= count;
    return value;
  };
  const symbol = ({ table, most }) => {
    fill(most);
    const entry = table[bits & (table.length - 1)];
    bits >>>= entry & 15;
    bitCount -= entry & 15;
    return entry >> 4;
  };
  const dynamicCodes = () => {
    const literals = take(5) + 257, distances = take(5) + 1, given = take(4) + 4;
    const first = new Uint8Array(19);
    for (let index = 0; index < given; index++) first[LENGTH_ORDER[index]] = take(3);
    const reader = codeTable(first), lengths = [];
    while (lengths.length < literals + distances) {
      const next = symbol(reader);
      if (next < 16) lengths.push(next);
      else if (next === 16) lengths.push(...Array(take(2) + 3).fill(lengths[lengths.length - 1]));
      else lengths.push(...Array(next === 17 ? take(3) + 3 : take(7) + 11).fill(0));
    }
    return [codeTable(lengths.slice(0, literals)), codeTable(lengths.slice(literals))];
  };
  const fixedCodes = () => {
    const length = (index) => (index < 144 ? 8 : index < 256 ? 9 : index < 280 ? 7 : 8);
    return [codeTable(Array.from({ length: 288 }, (_, index) => length(index))), codeTable(Array(30).fill(5))];
  };
  for (let last = 0; !last;) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      // Stored: back to whole bytes, including those in the bit buffer.
      position -= bitCount >> 3;
      bits = bitCount = 0;
      const length = source[position] | (source[position + 1] << 8);
      out.set(source.subarray(position + 4, position + 4 + length), written);
      position += 4 + length;
      written += length;
      continue;
    }
    const [literals, distances] = kind === 1 ? fixedCodes() : dynamicCodes();
    for (let next = symbol(literals); next !== 256; next = symbol(literals)) {
      if (next < 256) {
        out[written++] = next;
        continue;
      }
      const length = LENGTH_BASE[next - 257] + take(LENGTH_EXTRA[next - 257]);
      const far = symbol(distances);
      const back = DISTANCE_BASE[far] + take(DISTANCE_EXTRA[far]);
      for (let end = written + length; written < end; written++) out[written] = out[written - back];
    }
  }
  return out;
}

export function unpack(base64, size) {
  return inflate(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)), size);
}
