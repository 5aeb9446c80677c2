// The matrix on its canvas: cells, thinned names on both axes, the current row and column.

const NAME_WIDTH = 96;
const PALETTE = Array.from({ length: 256 }, (_, level) => [...viridis(level / 255), 255]);

function matrixView(canvas, box) {
  let layout = null, painted = null, shownOn = null;

  function measure(matrix) {
    const wide = box.clientWidth, gutter = Math.min(NAME_WIDTH, wide * 0.26);
    const across = matrix.rows === 1 ? (wide - 2) / matrix.columns : (wide - gutter - 2) / matrix.columns;
    const cell = Math.min(across, 30);
    if (matrix.rows === 1) return { strip: true, left: 1, top: 8, cell, tall: 120, width: wide, height: cell >= 11 ? 138 + nameRoom(matrix) : 132 };
    const down = Math.min(cell, 620 / matrix.rows);
    return { strip: false, left: gutter, top: NAME_WIDTH, cell, tall: down, width: wide, height: NAME_WIDTH + down * matrix.rows + 4 };
  }
  // The height of the rotated names below a strip: the longest name, at most NAME_WIDTH.
  function nameRoom(matrix) {
    const pen = canvas.getContext("2d");
    pen.font = `12px ${getComputedStyle(box).fontFamily}`;
    return Math.min(NAME_WIDTH, Math.max(...Array.from({ length: matrix.columns }, (_, column) => pen.measureText(visible(matrix.keyName(column))).width)));
  }
  function show(matrix, mark) {
    if (!box.clientWidth) return;
    layout = { ...measure(matrix), matrix };
    const dots = window.devicePixelRatio || 1, style = getComputedStyle(box);
    const width = Math.round(layout.width * dots), height = Math.round(layout.height * dots);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.height = `${layout.height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    pen.clearRect(0, 0, layout.width, layout.height);
    pen.font = `12px ${style.fontFamily}`;
    const look = { ink: style.color, faint: style.getPropertyValue("--faint"), accent: style.getPropertyValue("--accent"), bar: style.getPropertyValue("--lamp") };
    (layout.strip ? strip : cells)(pen, matrix, mark, look, dots);
  }
  function cells(pen, matrix, mark, look, dots) {
    const { left, top, cell, tall } = layout, wide = cell * matrix.columns, high = tall * matrix.rows;
    const key = `${wide}/${high}/${dots}`;
    if (shownOn !== matrix || painted?.key !== key) {
      painted = { key, image: paint(matrix, Math.floor(wide * dots), Math.floor(high * dots)) };
      shownOn = matrix;
    }
    pen.imageSmoothingEnabled = false;
    pen.drawImage(painted.image, left, top, wide, high);
    const { row, column, pinned } = mark;
    names(pen, look, matrix.rows, tall, [row, pinned], (index, strong) => {
      pen.textAlign = "right";
      label(pen, look, strong, matrix.queryName(matrix.rowStart(index)), left - 7, top + (index + 0.5) * tall + 4, 0);
    });
    names(pen, look, matrix.columns, cell, [column], (index, strong) => {
      pen.textAlign = "left";
      label(pen, look, strong, matrix.keyName(matrix.columnStart(index)), left + (index + 0.5) * cell + 4, top - 7, -Math.PI / 2);
    });
    pen.lineWidth = 1;
    pen.strokeStyle = "rgb(255 255 255 / 0.75)";
    pen.strokeRect(left + column * cell + 0.5, top + 0.5, Math.max(cell - 1, 1), high - 1);
    pen.strokeRect(left + 0.5, top + row * tall + 0.5, wide - 1, Math.max(tall - 1, 1));
    if (pinned >= 0) {
      pen.lineWidth = 2.5;
      pen.strokeStyle = look.accent;
      pen.strokeRect(left - 1, top + pinned * tall - 1, wide + 2, tall + 2);
    }
  }
  function strip(pen, matrix, mark, look) {
    const { left, top, cell, tall } = layout;
    pen.fillStyle = look.faint;
    pen.fillRect(left, top + tall, cell * matrix.columns, 1);
    for (let column = 0; column < matrix.columns; column++) {
      const high = (tall * matrix.values[column]) / matrix.most;
      pen.fillStyle = column === mark.column ? look.accent : look.bar;
      pen.fillRect(left + column * cell + (cell > 4 ? 1 : 0), top + tall - high, cell > 4 ? cell - 2 : cell, high);
    }
    if (cell < 11) return;
    names(pen, look, matrix.columns, cell, [mark.column], (index, strong) => {
      pen.textAlign = "right";
      label(pen, look, strong, matrix.keyName(matrix.columnStart(index)), left + (index + 0.5) * cell + 4, top + tall + 8, -Math.PI / 2);
    });
  }
  // Every name that fits, and always the current ones: their neighbours are left out.
  function names(pen, look, count, step, chosen, write) {
    const each = Math.max(1, Math.ceil(13 / step));
    for (let index = 0; index < count; index += each) {
      if (!chosen.some((other) => other !== index && other >= 0 && Math.abs(other - index) * step < 13)) write(index, chosen.includes(index));
    }
    for (const index of chosen) if (index >= 0 && index % each) write(index, true);
  }
  function label(pen, look, strong, name, x, y, angle) {
    pen.save();
    pen.translate(x, y);
    pen.rotate(angle);
    pen.fillStyle = strong ? look.accent : look.ink;
    let text = visible(name);
    const room = (angle ? NAME_WIDTH : Math.max(layout.left, 40)) - 10;
    while (text.length > 2 && pen.measureText(text).width > room) text = shorten(text, Array.from(text).length - 1);
    pen.fillText(text, 0, 0);
    pen.restore();
  }
  function place(event) {
    if (!layout) return null;
    const edge = canvas.getBoundingClientRect(), { matrix } = layout;
    const column = Math.floor((event.clientX - edge.left - layout.left) / layout.cell);
    const row = layout.strip ? 0 : Math.floor((event.clientY - edge.top - layout.top) / layout.tall);
    if (row < 0 || column < 0 || row >= matrix.rows || column >= matrix.columns) return null;
    return { row: matrix.rowStart(row), column: matrix.columnStart(column) };
  }
  return { show, place };
}

// Weights as pixels. Where there are more cells than pixels a pixel shows the greatest of its cells: a mean would hide spikes.
function paint(matrix, mostWide, mostHigh) {
  const wide = Math.max(1, Math.min(matrix.columns, mostWide)), high = Math.max(1, Math.min(matrix.rows, mostHigh));
  const maxima = new Float32Array(wide * high);
  for (let row = 0; row < matrix.rows; row++) {
    const line = Math.floor((row * high) / matrix.rows) * wide;
    for (let column = 0; column < matrix.columns; column++) {
      const at = line + Math.floor((column * wide) / matrix.columns);
      maxima[at] = Math.max(maxima[at], matrix.values[row * matrix.columns + column]);
    }
  }
  const image = make("canvas", { width: wide, height: high }), pen = image.getContext("2d"), pixels = pen.createImageData(wide, high);
  maxima.forEach((value, index) => pixels.data.set(PALETTE[Math.round(255 * Math.sqrt(value / matrix.most))], 4 * index));
  pen.putImageData(pixels, 0, 0);
  return image;
}
