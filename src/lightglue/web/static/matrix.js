// Counts of all pairs as a matrix that is filled in while they are matched. Drawn on a canvas; arrows walk through it.

const HEAD = 44; // px above and to the left, for small pictures of the images
const NUMBERS = 30; // px of a cell in which its number fits

export class Matrix {
  /** on: {choose(i, j), enter(i, j)}: a cell that is pointed at or walked to; one that is clicked. */
  constructor(canvas, on) {
    Object.assign(this, { canvas, on, images: [], cells: new Map(), chosen: null });
    canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#point(event));
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.choose(null));
    canvas.addEventListener("click", (event) => this.#click(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.redraw()).observe(canvas.parentElement);
  }

  /** images: [{name, picture}], a picture once it is there. */
  show(images) {
    Object.assign(this, { images, cells: new Map(), chosen: null });
    this.redraw();
  }

  /** found: {matches, inliers, overlap, error}. */
  set(i, j, found) {
    this.cells.set(`${i} ${j}`, found);
    this.redraw();
  }

  at(i, j) {
    return this.cells.get(i < j ? `${i} ${j}` : `${j} ${i}`);
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #layout() {
    const count = Math.max(1, this.images.length);
    const room = Math.min(this.canvas.parentElement.clientWidth, Math.max(320, 0.85 * window.innerHeight));
    const cell = Math.max(3, Math.min(72, (room - HEAD - 1) / count));
    return { count, cell: cell >= 8 ? Math.floor(cell) : cell };
  }

  #draw() {
    const { canvas, images } = this;
    const { count, cell } = this.#layout();
    const edge = Math.ceil(HEAD + count * cell + 1);
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const size = Math.round(edge * ratio);
    if (canvas.width !== size) Object.assign(canvas, { width: size, height: size });
    canvas.style.setProperty("width", `${edge}px`);
    canvas.style.setProperty("height", `${edge}px`);
    const style = getComputedStyle(canvas);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, edge, edge);
    this.#heads(context, images, cell, style);
    let most = 1;
    for (const found of this.cells.values()) most = Math.max(most, shown(found));
    const [accent, text] = [style.getPropertyValue("outline-color"), style.color];
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) {
        if (i !== j) this.#cell(context, i, j, cell, most, accent, text);
      }
    }
    context.globalAlpha = 1;
    this.#mark(context, cell, text);
  }

  #heads(context, images, cell, style) {
    context.font = `11px ${style.fontFamily}`;
    context.fillStyle = style.color;
    context.textAlign = "center";
    context.textBaseline = "middle";
    images.forEach((image, i) => {
      const [from, side] = [HEAD + i * cell, Math.min(cell - 1, HEAD - 4)];
      if (side < 3) return;
      const middle = from + (cell - side) / 2;
      if (image.picture) {
        const { width, height } = image.picture;
        const crop = Math.min(width, height);
        const source = [(width - crop) / 2, (height - crop) / 2, crop, crop];
        context.drawImage(image.picture, ...source, HEAD - side - 3, middle, side, side);
        context.drawImage(image.picture, ...source, middle, HEAD - side - 3, side, side);
      } else if (cell >= 16) {
        context.fillText(String(i + 1), HEAD / 2, from + cell / 2);
        context.fillText(String(i + 1), from + cell / 2, HEAD / 2);
      }
    });
  }

  #cell(context, i, j, cell, most, accent, text) {
    const found = this.at(i, j);
    const [x, y] = [HEAD + j * cell, HEAD + i * cell];
    const gap = cell >= 8 ? 1 : 0;
    context.globalAlpha = 1;
    context.fillStyle = text;
    if (!found) {
      context.globalAlpha = 0.06;
      context.fillRect(x, y, cell - gap, cell - gap);
      return;
    }
    if (found.error) {
      context.globalAlpha = 0.7;
      context.textAlign = "center";
      if (cell >= 8) context.fillText("!", x + cell / 2, y + cell / 2);
      else context.fillRect(x, y, cell / 2, cell / 2);
      return;
    }
    const share = Math.sqrt(shown(found) / most); // few matches are seen, too
    context.fillStyle = accent;
    context.globalAlpha = 0.1 + 0.85 * share;
    context.fillRect(x, y, cell - gap, cell - gap);
    if (cell < NUMBERS) return;
    context.globalAlpha = 1;
    context.fillStyle = share > 0.6 ? "#fff" : text;
    context.fillText(String(shown(found)), x + cell / 2, y + cell / 2);
  }

  #mark(context, cell, text) {
    if (!this.chosen) return;
    const [i, j] = this.chosen;
    context.strokeStyle = text;
    context.lineWidth = 2;
    for (const [row, column] of [[i, j], [j, i]]) {
      context.globalAlpha = row === i ? 1 : 0.4;
      context.strokeRect(HEAD + column * cell - 1, HEAD + row * cell - 1, cell + 1, cell + 1);
    }
    context.globalAlpha = 1;
  }

  #under(event) {
    const { count, cell } = this.#layout();
    const box = this.canvas.getBoundingClientRect();
    const [j, i] = [event.clientX - box.left, event.clientY - box.top].map((place) => Math.floor((place - HEAD) / cell));
    return i >= 0 && j >= 0 && i < count && j < count && i !== j ? [i, j] : null;
  }

  #point(event) {
    this.choose(this.#under(event));
  }

  #click(event) {
    const cell = this.#under(event);
    const isKnown = event.pointerType !== "touch" || String(cell) === String(this.chosen); // a finger points first
    this.choose(cell);
    if (cell && isKnown && this.at(...cell)) this.on.enter(...sorted(cell));
  }

  choose(cell) {
    if (String(cell) === String(this.chosen)) return;
    this.chosen = cell;
    this.canvas.style.setProperty("cursor", cell && this.at(...cell) ? "pointer" : "default");
    this.on.choose(cell && sorted(cell));
    this.redraw();
  }

  #key(event) {
    const count = this.images.length;
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step && count > 1) {
      let [i, j] = this.chosen ?? [0, 0];
      do {
        i = (i + step[0] + count) % count;
        j = (j + step[1] + count) % count;
      } while (i === j);
      this.choose([i, j]);
    } else if (event.key === "Enter" && this.chosen && this.at(...this.chosen)) this.on.enter(...sorted(this.chosen));
    else if (event.key === "Escape" && this.chosen) this.choose(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const sorted = ([i, j]) => (i < j ? [i, j] : [j, i]);

/** The count that a cell shows: inliers where a geometry was estimated. */
export const shown = (found) => found.inliers ?? found.matches ?? 0;
