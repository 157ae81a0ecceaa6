// A map that can be walked around in: mouse, touch and keys move the view; what is clicked is told to the page.

import { Cloud } from "./cloud.js";
import { between, cameraView, moved, onCanvas, orbitView, turned, wholeScene } from "./space.js";

const CLICK = 5; // px that a pointer may move and still click
const FLIGHT = 450; // ms from one view to another
const HOVERED = 200_000; // points that are looked through at each move of a mouse
const CLOSEST = 1e-3; // of the scene's extent
const FARTHEST = 50;

export class Stage {
  /** on: {pick(found), hover(found, x, y), change(), key(event)}. Throws where the browser has no WebGL 2. */
  constructor(canvas, on) {
    this.canvas = canvas;
    this.on = on;
    this.cloud = new Cloud(canvas);
    this.marks = { opacity: 0.85 };
    this.pointers = new Map();
    this.#listen();
    this.resized = new ResizeObserver(() => this.redraw());
    this.resized.observe(canvas);
  }

  show(map, content) {
    this.map = map;
    this.cloud.show(map, content);
    this.marks = { opacity: this.marks.opacity };
    this.flight = null;
    this.reset(false);
  }

  /** For a canvas that goes: browsers keep few contexts. */
  dispose() {
    this.resized.disconnect();
    this.map = null;
    this.cloud.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  /** Nothing to see. */
  clear() {
    this.map = this.orbit = null;
    this.cloud.clear();
  }

  get aspect() {
    return Math.max(1, this.canvas.clientWidth) / Math.max(1, this.canvas.clientHeight);
  }

  /** The view that is looked with once nothing moves. */
  get goal() {
    const { through, zoom } = this.marks;
    if (through === undefined || through === null) return orbitView(this.orbit, this.map.scene.axes, this.aspect);
    const { cloud } = this;
    const [pose, plane] = through === "visitor" ? [cloud.visitor.pose, cloud.visitor.plane] : [cloud.poses[through], cloud.planes[through]];
    return cameraView(pose, plane, this.map.scene.centre, this.aspect, zoom);
  }

  get view() {
    if (!this.flight) return this.goal;
    const t = Math.min(1, (performance.now() - this.flight.begin) / FLIGHT);
    if (t >= 1) this.flight = null;
    return this.flight ? between(this.flight.from, this.goal, t * t * (3 - 2 * t)) : this.goal;
  }

  redraw() {
    if (this.frame || !this.map) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.cloud.resize();
      this.cloud.draw(this.view, this.marks);
      if (this.flight) this.redraw();
    });
  }

  /** Change where is looked from, in a short flight unless motion is to be reduced. */
  #fly(change) {
    const from = this.map && this.orbit ? this.view : null;
    change();
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.flight = from && !isStill ? { from, begin: performance.now() } : null;
    this.redraw();
    this.on.change?.();
  }

  reset(flies = true) {
    const change = () => {
      this.orbit = wholeScene(this.map.scene, this.cloud.landmarks(), this.aspect);
      this.marks.through = null;
    };
    if (flies) this.#fly(change);
    else {
      change();
      this.redraw();
      this.on.change?.();
    }
  }

  /** Look through the camera of an image, or of the "visitor"; null: back to where one was. */
  lookThrough(key) {
    this.#fly(() => Object.assign(this.marks, { through: key, zoom: { x: 0, y: 0, scale: 1 } }));
  }

  /** Look at a place, from as far as before or nearer. */
  lookAt(position, distance = this.orbit.distance) {
    this.#fly(() => {
      this.orbit = { ...this.orbit, target: position, distance };
      this.marks.through = null;
    });
  }

  get isThrough() {
    return this.marks.through !== undefined && this.marks.through !== null;
  }

  mark(changes) {
    Object.assign(this.marks, changes);
    this.redraw();
  }

  /** Where a position is drawn, CSS px of the canvas, and its depth; null behind the viewer. */
  placeOf(position) {
    return onCanvas(this.cloud.matrix(this.view), position, this.canvas.clientWidth, this.canvas.clientHeight);
  }

  choosePoints(rows) {
    this.cloud.choose(rows);
    this.redraw();
  }

  turn(yaw, pitch) {
    if (this.isThrough) return;
    this.orbit = turned(this.orbit, yaw, pitch);
    this.redraw();
  }

  /** Move across the view, by shares of its height. */
  pan(x, y) {
    if (this.isThrough) {
      const { zoom } = this.marks;
      zoom.x = clamp(zoom.x + (2 * x * this.aspect) / zoom.scale, -1, 1);
      zoom.y = clamp(zoom.y + (2 * y) / zoom.scale, -1, 1);
    } else this.orbit = moved(this.orbit, this.map.scene.axes, x, y);
    this.redraw();
  }

  /** Go nearer by a factor, towards (x, y) of the canvas, from -0.5 to 0.5 of its height from the middle. */
  nearer(factor, x = 0, y = 0) {
    if (this.isThrough) {
      const { zoom } = this.marks;
      const scale = clamp(zoom.scale * factor, 1, 40);
      this.pan(x * (1 - zoom.scale / scale), y * (1 - zoom.scale / scale));
      zoom.scale = scale;
      if (scale === 1) Object.assign(zoom, { x: 0, y: 0 });
    } else {
      const { extent } = this.map.scene;
      const distance = clamp(this.orbit.distance / factor, CLOSEST * extent, FARTHEST * extent);
      const share = 1 - distance / this.orbit.distance;
      const target = moved(this.orbit, this.map.scene.axes, x * share, y * share).target;
      this.orbit = { ...this.orbit, target, distance };
    }
    this.redraw();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #pick(event, hasPoints = true) {
    const [x, y] = this.#place(event);
    return this.cloud.pick(this.goal, x, y, !this.isThrough, hasPoints);
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", (event) => this.#twice(event));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.cloud.restore();
      this.redraw();
    });
  }

  #down(event) {
    if (!this.map) return;
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.pointers.size === 1) this.press = { x: event.clientX, y: event.clientY, isClick: event.button === 0 };
    else if (this.press) this.press.isClick = false;
  }

  #move(event) {
    if (!this.map) return;
    const last = this.pointers.get(event.pointerId);
    if (!last) {
      if (event.pointerType === "mouse") this.#hoverSoon(event);
      return;
    }
    const before = this.#grip();
    Object.assign(last, { x: event.clientX, y: event.clientY });
    if (this.press && Math.hypot(last.x - this.press.x, last.y - this.press.y) > CLICK) this.press.isClick = false;
    if (this.press?.isClick) return;
    const after = this.#grip();
    const height = this.canvas.clientHeight;
    const [dx, dy] = [(after.x - before.x) / height, (after.y - before.y) / height];
    const isPan = this.pointers.size > 1 || this.isThrough || event.shiftKey || (event.buttons & 6) !== 0;
    if (isPan) this.pan(-dx, -dy);
    else this.turn(dx * Math.PI, dy * Math.PI);
    if (before.spread > 0 && after.spread > 0) this.nearer(after.spread / before.spread);
  }

  /** The middle of the fingers, and how far apart they are. */
  #grip() {
    const all = [...this.pointers.values()];
    const x = all.reduce((sum, each) => sum + each.x, 0) / all.length;
    const y = all.reduce((sum, each) => sum + each.y, 0) / all.length;
    return { x, y, spread: all.length > 1 ? Math.hypot(all[0].x - all[1].x, all[0].y - all[1].y) : 0 };
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId) || !this.map) return;
    if (event.type === "pointerup" && this.press?.isClick && !this.pointers.size) this.on.pick(this.#pick(event));
    if (!this.pointers.size) this.press = null;
  }

  #hoverSoon(event) {
    this.pointed = event;
    this.hovering ??= requestAnimationFrame(() => {
      this.hovering = null;
      if (this.map && this.pointed && !this.flight) this.#hover(this.#pick(this.pointed, this.cloud.count <= HOVERED), ...this.#place(this.pointed));
    });
  }

  #hover(found, x, y) {
    if (!found) this.pointed = null;
    const image = found?.image ?? null;
    if (image !== (this.marks.hovered ?? null)) this.mark({ hovered: image });
    this.canvas.style.cursor = found ? "pointer" : "grab";
    this.on.hover(found, x, y);
  }

  #twice(event) {
    const found = this.map && this.#pick(event);
    if (!found) return;
    if (found.point !== undefined) this.lookAt(this.cloud.position(found.point), this.orbit.distance / 2);
    else this.lookThrough(found.visitor ? "visitor" : found.image);
  }

  #wheel(event) {
    if (!this.map) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    const [x, y] = this.#place(event);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.nearer(Math.exp(-event.deltaY * lines * 0.0015), (x - width / 2) / height, (y - height / 2) / height);
  }

  #key(event) {
    if (!this.map || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.09;
    const pans = event.shiftKey || this.isThrough;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (arrows && pans) this.pan(arrows[0] * step, arrows[1] * step);
    else if (arrows) this.turn(-arrows[0] * step, -arrows[1] * step);
    else if (event.key === "+" || event.key === "=") this.nearer(1.2);
    else if (event.key === "-") this.nearer(1 / 1.2);
    else if (event.key === "Home" || event.key === "0") this.reset();
    else if (!this.on.key?.(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
