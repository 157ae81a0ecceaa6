/* The linked canvas: two images, their keypoints and matches; zoom, pan, hover, pin. It fetches nothing.
 *
 * const viewer = new Viewer(container);
 * viewer.setImages([{ name, width, height } x 2], [picture, picture]);  pictures: what drawImage takes, or null
 * viewer.setPair(pair)         a Pair of pair.js, or null
 * viewer.set({ threshold: 0.2, mode: "points" })      see VIEW below
 * viewer.tool = { down(side, point, event), move, up, draw(context, panes), key(event) } takes the pointer, for brushes
 * Events (CustomEvent.detail): "view" (what set changed), "hover" ({ side, keypoint, match } or null), "camera"
 */

import { INK, drawDots, drawLines, drawMatch, drawPicture, placed, scoreGroups } from "./draw.js";
import { el } from "./dom.js";
import { Pane, arrange, follow, single } from "./panes.js";
import { motionReduced } from "./theme.js";
import { warped } from "./warp.js";

export const MODES = ["lines", "points", "layers", "swipe", "blink", "fade"];
export const WARPS = new Set(["swipe", "blink", "fade"]);

const VIEW = {
  threshold: 0, // matches that score more are shown
  mode: "lines",
  filter: "all", // "inliers", "outliers"
  layer: 1, // of mode "layers"
  pin: null, // { match } or { side, keypoint }
  linked: true, // zoom and pan both
  layout: "auto", // "side", "stack"
  swapped: false, // image 1 left or above
  split: 0.5, // of swipe: where the images meet
  opacity: 0.5, // of fade
  second: true, // of blink: whether image 1 is on
  only: null, // Uint8Array: 1 for matches that another pair has too; these are drawn quiet
};

const REACH = 10; // CSS px from a keypoint
const BLINK = 700; // ms
const MANY = 500; // matches; more are drawn thinner
const SETTLED = 140; // ms without a change after which a quick drawing is made a good one

export class Viewer extends EventTarget {
  constructor(container) {
    super();
    this.view = { ...VIEW };
    this.pair = null;
    this.pictures = [null, null];
    this.panes = [new Pane(4, 3), new Pane(4, 3)];
    this.hovered = null;
    this.tool = null;
    this.below = el("canvas", { "aria-hidden": "true" });
    this.marks = el("canvas", { class: "marks grab", tabindex: "0", role: "application", "label-text": "canvas_label" });
    this.tags = [0, 1].map(() => el("span", { class: "tag", hidden: true }));
    this.tip = el("div", { class: "tip", hidden: true });
    container.classList.add("viewer");
    container.append(this.below, this.marks, ...this.tags, this.tip);
    this.container = container;
    this.dirty = { below: true, marks: true };
    this.ends = [new Float32Array(0), new Float32Array(0)];
    this.pointers = new Map();
    this.#listen();
    new ResizeObserver(() => this.layout()).observe(container);
    document.addEventListener("themechange", () => this.redraw());
  }

  // What is shown

  setImages(images, pictures) {
    this.images = images;
    this.pictures = pictures;
    this.warp = null;
    this.panes.forEach((pane, i) => {
      const { width, height } = images[i] ?? { width: 4, height: 3 };
      if (pane.image.width === width && pane.image.height === height) return;
      pane.image = { width, height };
      pane.reset();
    });
    this.layout();
  }

  setPair(pair) {
    this.pair = pair;
    this.warp = null;
    this.hovered = null;
    this.view.only = null;
    this.ends = [0, 1].map(() => new Float32Array(pair ? 2 * pair.size : 0));
    this.redraw();
  }

  set(changes, quiet = false) {
    const before = this.view;
    this.view = { ...before, ...changes };
    if (this.view.mode !== before.mode || this.view.layout !== before.layout || this.view.swapped !== before.swapped) {
      this.layout();
      this.#blink();
    }
    if ("threshold" in changes) this.#hurry();
    this.redraw(WARPS.has(this.view.mode) && !("threshold" in changes));
    if (!quiet) this.#tell("view", changes);
  }

  /** Whether one pane shows both images. */
  get together() {
    return WARPS.has(this.view.mode) && this.pair !== null && this.pair.homography !== null;
  }

  layout() {
    const width = this.container.clientWidth;
    if (!width) return;
    const most = Math.max(260, Math.min(innerHeight * 0.72, 860));
    const sizes = this.panes.map((pane) => pane.image);
    const order = this.view.swapped ? [1, 0] : [0, 1];
    const found = this.together
      ? single(width, most, sizes[0])
      : arrange(width, most, order.map((i) => sizes[i]), this.view.layout);
    if (this.together) this.panes[0].rectangle = found.rectangles[0];
    else order.forEach((i, place) => { this.panes[i].rectangle = found.rectangles[place]; });
    this.panes.forEach((pane) => pane.clamp());
    const height = Math.round(found.height);
    this.container.style.height = `${height}px`;
    const ratio = devicePixelRatio || 1;
    for (const canvas of [this.below, this.marks]) {
      const size = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width !== size[0]) canvas.width = size[0];
      if (canvas.height !== size[1]) canvas.height = size[1];
    }
    this.tags.forEach((tag, i) => {
      tag.hidden = !this.images?.[i]?.name || (this.together && i === 1);
      tag.textContent = this.images?.[i]?.name ?? "";
      const { x, y } = this.panes[i].rectangle;
      tag.style.left = `${x + 8}px`;
      tag.style.top = `${y + 8}px`;
    });
    this.redraw();
  }

  redraw(below = true) {
    this.dirty.marks = true;
    this.dirty.below ||= below;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  /** Something moves: draw quickly until it stands still, so that each frame is there in time. */
  #hurry() {
    this.hurried = true;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      this.hurried = false;
      this.redraw(false);
    }, SETTLED);
  }

  /** Draw now what has changed. */
  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (this.dirty.below) this.#drawPictures();
    if (this.dirty.marks) this.#drawMarks();
    this.dirty = { below: false, marks: false };
  }

  #context(canvas) {
    const context = canvas.getContext("2d");
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    return context;
  }

  #drawPictures() {
    const context = this.#context(this.below);
    if (this.together) return this.#drawTogether(context);
    this.panes.forEach((pane, i) => this.pictures[i] && drawPicture(context, pane, this.pictures[i]));
  }

  #drawTogether(context) {
    const [pane] = this.panes;
    if (!this.pictures[0] || !this.pictures[1]) return;
    this.warp ??= warped(this.pictures[1], this.panes.map((each) => each.image), this.pair.homography);
    drawPicture(context, pane, this.pictures[0]);
    const { mode, split, opacity, second } = this.view;
    if (mode === "blink" && !second) return;
    context.save();
    if (mode === "fade") context.globalAlpha = opacity;
    if (mode === "swipe") {
      const { x, y, width, height } = pane.rectangle;
      context.beginPath();
      context.rect(x + width * split, y, width * (1 - split), height);
      context.clip();
    }
    drawPicture(context, pane, this.warp);
    context.restore();
  }

  /** How many matches are above the threshold. */
  get count() {
    return this.pair ? this.pair.countAbove(this.view.threshold) : 0;
  }

  #drawMarks() {
    const context = this.#context(this.marks);
    const { pair, view } = this;
    if (pair && !this.together) {
      const { count } = this;
      this.ends.forEach((ends, side) => placed(pair.points[side], this.panes[side], count, ends));
      if (view.mode === "layers") this.#drawLayers(context);
      else if (view.mode === "points") this.#drawPoints(context, count);
      else this.#drawLines(context, count);
      this.#drawChosen(context);
    }
    if (this.together && view.mode === "swipe") this.#drawHandle(context);
    this.tool?.draw?.(context, this.panes);
  }

  /** Which group a match is drawn with: a shade of its score, or the last two for outliers and what others have too. */
  #style(outliers, quiet) {
    const { pair, view } = this;
    return (k) => {
      if (!pair.passes(k, view.filter)) return -1;
      if (view.only?.[k]) return quiet;
      if (view.filter === "all" && pair.inlier && !pair.inlier[k]) return outliers;
      return pair.shades[k];
    };
  }

  #drawLines(context, count) {
    const busy = Math.min(1, 0.35 + 150 / Math.max(count, 1));
    const faint = this.view.pin || this.hovered ? 0.35 : 1;
    const quick = this.hurried || count > MANY; // a line of one pixel costs a fifth of a wider one
    const groups = scoreGroups(quick ? 1 : 1.35, busy * faint);
    groups.push({ colour: INK.outlier, width: quick ? 1 : 0.8, alpha: 0.5 * faint });
    groups.push({ colour: INK.both, width: quick ? 1 : 0.7, alpha: 0.28 * faint });
    const style = this.#style(groups.length - 2, groups.length - 1);
    drawLines(context, this.ends, this.panes, count, groups.map((_, i) => groups[(i + groups.length - 2) % groups.length]),
      (k) => {
        const group = style(k);
        return group < 0 ? group : (group + 2) % groups.length; // outliers and quiet ones first, below the others
      });
    if (this.hurried && count > MANY) return;
    const near = this.panes[0].zoom > 1.6 || count <= MANY;
    const dots = groups.map((group, i) => ({ ...group, alpha: i < groups.length - 2 ? Math.min(1, 1.6 * faint) : group.alpha }));
    for (const side of [0, 1]) {
      drawDots(context, this.ends[side], this.panes[side], count, dots, style, near ? 2.4 : 1.8);
    }
  }

  #drawPoints(context, count) {
    const { pair } = this;
    const groups = scoreGroups(1, 1);
    groups.push({ colour: INK.outlier, width: 1, alpha: 0.8 }, { colour: INK.both, width: 1, alpha: 0.4 });
    const style = this.#style(groups.length - 2, groups.length - 1);
    for (const side of [0, 1]) {
      const free = (i) => (pair.matchOf[side][i] < 0 || pair.matchOf[side][i] >= count ? 0 : -1);
      const ring = [{ colour: INK.plain, alpha: 0.75, hollow: true }];
      if (this.view.filter === "all") this.#drawKeypoints(context, side, ring, free, 2.2);
      drawDots(context, this.ends[side], this.panes[side], count, groups, style, 3.4);
    }
  }

  #drawLayers(context) {
    const { pair } = this;
    const groups = [
      { colour: INK.gone, alpha: 0.45, hollow: true },
      { colour: INK.now, alpha: 1 },
      { colour: INK.kept, alpha: 0.95 },
    ];
    for (const side of [0, 1]) {
      if (!pair.dropped[side].length) continue;
      const style = (i) => {
        const dropped = pair.dropped[side][i];
        if (!dropped || dropped > this.view.layer) return 2;
        return dropped === this.view.layer ? 1 : 0;
      };
      this.#drawKeypoints(context, side, groups, style, 2.6);
    }
  }

  #drawKeypoints(context, side, ...how) {
    const { keypoints } = this.pair;
    const count = this.pair.count(side);
    drawDots(context, placed(keypoints[side], this.panes[side], count), this.panes[side], count, ...how);
  }

  #drawChosen(context) {
    const { pair } = this;
    for (const [chosen, colour] of [[this.view.pin, "#63b6f2"], [this.hovered, INK.accent]]) {
      if (!chosen) continue;
      const match = chosen.match ?? null;
      if (match !== null && match < pair.size) {
        const put = (side) => {
          const at = this.panes[side].put(...pair.end(match, side));
          return this.panes[side].holds(...at) ? at : null;
        };
        drawMatch(context, put(0), put(1), colour);
      } else if (chosen.side !== undefined) {
        const at = this.panes[chosen.side].put(...pair.keypoint(chosen.keypoint, chosen.side));
        if (this.panes[chosen.side].holds(...at)) drawMatch(context, at, null, colour);
      }
    }
  }

  #drawHandle(context) {
    const { x, y, width, height } = this.panes[0].rectangle;
    const at = x + width * this.view.split;
    context.fillStyle = "#000a";
    context.fillRect(at - 2, y, 4, height);
    context.fillStyle = "#fff";
    context.fillRect(at - 1, y, 2, height);
    context.beginPath();
    context.arc(at, y + height / 2, 13, 0, 2 * Math.PI);
    context.fill();
    context.strokeStyle = "#000";
    context.lineWidth = 1.5;
    context.beginPath();
    for (const sign of [-1, 1]) {
      context.moveTo(at + sign * 3, y + height / 2 - 4);
      context.lineTo(at + sign * 7, y + height / 2);
      context.lineTo(at + sign * 3, y + height / 2 + 4);
    }
    context.stroke();
  }

  #blink() {
    clearInterval(this.blinking);
    if (this.view.mode !== "blink" || motionReduced()) return;
    this.blinking = setInterval(() => {
      if (!this.container.isConnected || this.container.closest("[hidden]")) return;
      this.set({ second: !this.view.second }, true);
    }, BLINK);
  }

  // Zoom and pan

  #others(pane) {
    return this.view.linked && !this.together ? this.panes.filter((each) => each !== pane) : [];
  }

  #followed(pane) {
    const side = this.panes.indexOf(pane);
    for (const other of this.#others(pane)) {
      other.zoom = pane.zoom;
      const at = this.pair && follow(this.pair, this.count, side, ...pane.centre);
      other.centre = at ?? pane.centre.map((value, i) => {
        const edges = [[pane.image.width, other.image.width], [pane.image.height, other.image.height]][i];
        return ((value + 0.5) / edges[0]) * edges[1] - 0.5;
      });
      other.clamp();
    }
    this.#hurry();
    this.marks.style.touchAction = this.panes.some((each) => each.zoom > 1) || this.tool ? "none" : "pan-y";
    this.redraw();
    this.#tell("camera", null);
  }

  zoom(factor, x = null, y = null) {
    const pane = this.#paneAt(x, y) ?? this.panes[0];
    const { rectangle } = pane;
    pane.zoomAt(factor, x ?? rectangle.x + rectangle.width / 2, y ?? rectangle.y + rectangle.height / 2);
    this.#followed(pane);
  }

  pan(dx, dy, pane = this.panes[0]) {
    pane.move(dx, dy);
    this.#followed(pane);
  }

  fit() {
    this.panes.forEach((pane) => pane.reset());
    this.#followed(this.panes[0]);
  }

  get camera() {
    const [{ zoom, centre }] = this.panes;
    return zoom > 1.001 ? { zoom, x: centre[0], y: centre[1] } : null;
  }

  set camera(camera) {
    if (!camera) return this.fit();
    const [pane] = this.panes;
    pane.zoom = Math.min(Math.max(camera.zoom, 1), 64);
    pane.centre = [camera.x, camera.y];
    pane.clamp();
    this.#followed(pane);
  }

  /** Both ends of a match in the middle of their panes, where one has zoomed in. */
  look(match) {
    if (!this.pair || this.together || this.panes.every((pane) => pane.zoom <= 1.001)) return;
    this.panes.forEach((pane, side) => {
      pane.centre = this.pair.end(match, side);
      pane.clamp();
    });
    this.redraw();
    this.#tell("camera", null);
  }

  // Pointer

  #paneAt(x, y) {
    if (x === null) return null;
    const panes = this.together ? this.panes.slice(0, 1) : this.panes;
    return panes.find((pane) => pane.holds(x, y)) ?? null;
  }

  /** 0 or 1 for the image that an event of the pointer or of a drop is over; -1 for neither. */
  sideAt(event) {
    if (!this.container.contains(event.target) || this.together) return -1;
    return this.panes.indexOf(this.#paneAt(...this.#place(event)));
  }

  #place(event) {
    const box = this.marks.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** The keypoint at a place of the screen: { side, keypoint, match } or null. Matched ones are found more easily. */
  at(x, y) {
    const { pair } = this;
    const pane = this.#paneAt(x, y);
    if (!pair || !pane || this.together) return null;
    const side = this.panes.indexOf(pane);
    const [px, py] = pane.take(x, y);
    const points = pair.keypoints[side];
    const { count } = this;
    let best = REACH / pane.scale;
    let found = null;
    for (let i = 0; i < points.length / 2; i++) {
      const match = pair.matchOf[side][i];
      const shown = match >= 0 && match < count && pair.passes(match, this.view.filter);
      if (!shown && this.view.mode === "lines" && this.view.filter !== "all") continue;
      const distance = Math.hypot(points[2 * i] - px, points[2 * i + 1] - py) * (shown ? 0.6 : 1);
      if (distance >= best) continue;
      best = distance;
      found = { side, keypoint: i, match: shown ? match : null };
    }
    return found;
  }

  #listen() {
    const { marks } = this;
    marks.addEventListener("wheel", (event) => {
      const [x, y] = this.#place(event);
      const pane = this.#paneAt(x, y);
      if (!pane || (event.deltaY > 0 && pane.zoom <= 1 && !event.ctrlKey)) return; // the page scrolls
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
      this.zoom(Math.exp(-Math.min(Math.max(pixels, -120), 120) * 0.003), x, y);
      this.#hover(x, y);
    }, { passive: false });
    marks.addEventListener("pointerdown", (event) => this.#down(event));
    marks.addEventListener("pointermove", (event) => this.#move(event));
    marks.addEventListener("pointerup", (event) => this.#up(event));
    marks.addEventListener("pointercancel", (event) => this.#up(event, true));
    marks.addEventListener("pointerleave", () => this.pointers.size || this.#setHover(null));
    marks.addEventListener("dblclick", (event) => !this.tool && this.zoom(2, ...this.#place(event)));
    marks.addEventListener("keydown", (event) => this.#key(event));
  }

  #down(event) {
    if (event.button !== 0 && event.button !== 1) return;
    const [x, y] = this.#place(event);
    this.marks.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [x, y]);
    this.moved = this.pointers.size > 1;
    this.start = [x, y];
    this.held = this.#paneAt(x, y);
    this.swiping = this.together && this.view.mode === "swipe" && this.pointers.size === 1
      && Math.abs(x - this.panes[0].rectangle.width * this.view.split) < 24;
    if (this.tool && this.held && this.pointers.size === 1 && event.button === 0) {
      this.tool.down?.(this.panes.indexOf(this.held), this.held.take(x, y), event);
      this.redraw(false);
    }
  }

  #move(event) {
    const [x, y] = this.#place(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (this.tool) {
        this.tool.hover?.(this.#paneAt(x, y) ? this.panes.indexOf(this.#paneAt(x, y)) : -1, this.#paneAt(x, y)?.take(x, y));
        return this.redraw(false);
      }
      return this.#hover(x, y, event);
    }
    if (this.pointers.size === 2) return this.#pinch(event.pointerId, [x, y]);
    this.pointers.set(event.pointerId, [x, y]);
    if (Math.hypot(x - this.start[0], y - this.start[1]) > 4) this.moved = true;
    if (!this.held) return;
    if (this.tool && !(event.buttons & 4)) {
      this.tool.move?.(this.panes.indexOf(this.held), this.held.take(x, y), event);
      return this.redraw(false);
    }
    if (this.swiping) {
      const { x: left, width } = this.panes[0].rectangle;
      return this.set({ split: Math.min(Math.max((x - left) / width, 0), 1) });
    }
    if (!this.moved) return;
    this.#setHover(null);
    this.marks.classList.add("grabbing");
    this.pan(x - before[0], y - before[1], this.held);
  }

  #pinch(id, place) {
    const [other] = [...this.pointers].filter(([each]) => each !== id).map(([, at]) => at);
    const before = this.pointers.get(id);
    const middle = [(place[0] + other[0]) / 2, (place[1] + other[1]) / 2];
    const spread = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    this.pointers.set(id, place);
    const pane = this.held ?? this.panes[0];
    pane.zoomAt(spread(place) / Math.max(1, spread(before)), ...middle);
    pane.move((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
    this.#followed(pane);
  }

  #up(event, cancelled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.marks.classList.remove("grabbing");
    const [x, y] = this.#place(event);
    if (this.tool && this.held) {
      this.tool.up?.(this.panes.indexOf(this.held), this.held.take(x, y), { moved: this.moved, cancelled });
      return this.redraw(false);
    }
    if (cancelled || this.moved || this.swiping || this.pointers.size) return;
    const found = this.at(x, y);
    if (event.pointerType === "touch") this.#setHover(null);
    this.set({ pin: found && (found.match !== null ? { match: found.match } : { side: found.side, keypoint: found.keypoint }) });
  }

  #hover(x, y, event) {
    if (event?.pointerType === "touch") return;
    this.#setHover(this.at(x, y));
    this.marks.classList.toggle("point", this.hovered !== null);
  }

  #setHover(found) {
    const same = found?.side === this.hovered?.side && found?.keypoint === this.hovered?.keypoint;
    if (same && (found === null) === (this.hovered === null)) return;
    this.hovered = found;
    this.redraw(false);
    this.#tell("hover", found);
  }

  /** Text beside a keypoint: lines, or none to hide it. */
  say(lines) {
    this.tip.hidden = !lines || !this.hovered;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(document.createTextNode(lines[0]),
      ...lines.slice(1).map((line) => el("span", {}, line)));
    const { side, keypoint } = this.hovered;
    const [x, y] = this.panes[side].put(...this.pair.keypoint(keypoint, side));
    const { clientWidth, clientHeight } = this.container;
    const box = [this.tip.offsetWidth, this.tip.offsetHeight];
    this.tip.style.left = `${Math.max(4, x + 14 + box[0] > clientWidth ? x - 14 - box[0] : x + 14)}px`;
    this.tip.style.top = `${Math.min(Math.max(4, y + 14), clientHeight - box[1] - 4)}px`;
  }

  #key(event) {
    if (this.tool?.key?.(event)) {
      event.preventDefault();
      event.stopPropagation();
      return this.redraw(false);
    }
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.shiftKey && steps[event.key]) this.pan(...steps[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** A picture that is ready to be drawn. */
export async function loadPicture(address) {
  const picture = new Image();
  picture.decoding = "async";
  picture.src = address;
  await picture.decode();
  return picture;
}
