// A text of any length as shaded tokens. Of a long one only the part on show is in the page.
import { make } from "./elements.js";
import { shade, visible } from "./words.js";

const CHUNK = 256;
const MOST_AT_ONCE = 1024;

// `onhover` and `onpick` receive the index of a token, -1 for none.
export function tokenText({ label, onhover, onpick }) {
  const box = make("div", { class: "reading tokens", dir: "auto", tabindex: "0", role: "group", "aria-label": label });
  let names = null, chunks = [], observer = null, look = { weightOf: () => 0, count: 0, row: -1, column: -1, pinned: -1 };

  function setNames(next) {
    if (next === names) return;
    names = next;
    observer?.disconnect();
    const isLong = names.length > MOST_AT_ONCE;
    box.classList.toggle("long", isLong);
    chunks = Array.from({ length: Math.ceil(names.length / CHUNK) }, (_, index) => ({ start: index * CHUNK, marks: null, node: make("div", { class: "chunk" }) }));
    box.replaceChildren(...chunks.map((chunk) => chunk.node));
    box.scrollTop = 0;
    if (!isLong) {
      chunks.forEach(show);
      return;
    }
    // The height of what is not on show is that of the first part, until it has been on show.
    show(chunks[0]);
    const height = chunks[0].node.offsetHeight || 400;
    for (const chunk of chunks.slice(1)) chunk.node.style.height = `${height}px`;
    const byNode = new Map(chunks.map((chunk) => [chunk.node, chunk]));
    observer = new IntersectionObserver((entries) => {
      for (const entry of entries) (entry.isIntersecting ? show : hide)(byNode.get(entry.target));
    }, { root: box, rootMargin: "800px" });
    for (const chunk of chunks) observer.observe(chunk.node);
  }
  function show(chunk) {
    if (chunk.marks) return;
    chunk.marks = names.slice(chunk.start, chunk.start + CHUNK).map((name, index) => make("mark", { "data-token": chunk.start + index }, visible(name)));
    chunk.node.style.height = "";
    chunk.node.replaceChildren(...chunk.marks.flatMap((mark) => [mark, " "]));
    paintChunk(chunk);
  }
  function hide(chunk) {
    if (!chunk.marks) return;
    chunk.node.style.height = `${chunk.node.offsetHeight}px`;
    chunk.node.replaceChildren();
    chunk.marks = null;
  }
  function paintChunk({ start, marks }) {
    marks.forEach((mark, index) => {
      const token = start + index, level = shade(look.weightOf(token), look.count);
      const name = `weight-${level}${token === look.row || token === look.column ? " cursor" : ""}${token === look.pinned ? " pinned" : ""}`;
      if (mark.className !== name) mark.className = name;
    });
  }
  function paint(next) {
    look = next;
    for (const chunk of chunks) if (chunk.marks) paintChunk(chunk);
  }
  // Scroll to a token: in a long text its box, else the page, if it may.
  function reveal(token, mayScrollPage) {
    const chunk = chunks[Math.floor(token / CHUNK)];
    if (!chunk) return;
    show(chunk);
    const mark = chunk.marks[token - chunk.start];
    if (!observer) {
      if (mayScrollPage) mark.scrollIntoView({ block: "nearest" });
      return;
    }
    const top = chunk.node.offsetTop + mark.offsetTop, bottom = top + mark.offsetHeight;
    if (top < box.scrollTop) box.scrollTop = top - 40;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight + 40;
  }
  const tokenAt = (event) => Number(event.target.closest("mark")?.dataset.token ?? -1);
  box.addEventListener("pointerover", (event) => onhover(tokenAt(event)));
  box.addEventListener("pointerleave", () => onhover(-1));
  box.addEventListener("click", (event) => { if (tokenAt(event) >= 0) onpick(tokenAt(event)); });
  return { node: box, setNames, paint, reveal };
}
