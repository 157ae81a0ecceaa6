/* A brush: where it has painted, an image gets no keypoints. With the mouse, a finger, or arrows and the space bar. */

import { el } from "./dom.js";
import { t } from "./i18n.js";

const LARGEST = 4096; // px of an edge of the canvas that is painted on

export class MaskTool {
  /** @param slot whose mask it is; leave() when done; painted() after each stroke */
  constructor(slot, leave, painted) {
    this.slot = slot;
    this.leave = leave;
    this.painted = painted;
    this.erasing = false;
    this.size = Math.round(Math.max(slot.image.width, slot.image.height) / 20); // px of the image, the brush's width
    this.at = null; // under the pointer, or the keyboard's cross
    this.last = null;
  }

  controls() {
    const size = el("input", {
      type: "range", min: 2, max: Math.round(Math.max(this.slot.image.width, this.slot.image.height) / 4), value: this.size, "aria-label": t("brush_size"),
      oninput: () => {
        this.size = Number(size.value);
        this.redraw();
      },
    });
    const erase = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
      this.erasing = !this.erasing;
      erase.setAttribute("aria-pressed", String(this.erasing));
    } }, t("erase"));
    return [
      el("span", {}, t("mask_hint", { letter: "AB"[this.slot.side] })), size, erase,
      el("button", { type: "button", onclick: () => this.#clear() }, t("clear")),
      el("button", { type: "button", class: "primary", onclick: this.leave }, t("done")),
    ];
  }

  #canvas() {
    if (!this.slot.mask) {
      const { width, height } = this.slot.image;
      const scale = Math.min(1, LARGEST / Math.max(width, height));
      this.slot.mask = el("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    }
    return this.slot.mask;
  }

  #clear() {
    this.slot.mask = null;
    this.painted();
    this.redraw();
  }

  #stroke(from, to) {
    const canvas = this.#canvas();
    const scale = canvas.width / this.slot.image.width;
    const context = canvas.getContext("2d");
    context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    context.strokeStyle = "#000";
    context.lineCap = "round";
    context.lineWidth = this.size * scale;
    context.beginPath();
    context.moveTo((from[0] + 0.5) * scale, (from[1] + 0.5) * scale);
    context.lineTo((to[0] + 0.5) * scale + 0.01, (to[1] + 0.5) * scale);
    context.stroke();
  }

  down(side, point) {
    if (side !== this.slot.side) return;
    this.last = point;
    this.at = point;
    this.#stroke(point, point);
  }

  move(side, point) {
    if (!this.last || side !== this.slot.side) return;
    this.#stroke(this.last, point);
    this.last = point;
    this.at = point;
  }

  up() {
    if (!this.last) return;
    this.last = null;
    this.painted();
  }

  hover(side, point) {
    this.at = side === this.slot.side ? point : null;
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { width, height } = this.slot.image;
    if (event.key === "Escape" || event.key === "Enter") this.leave();
    else if (steps[event.key]) {
      const step = this.size * (event.shiftKey ? 2 : 0.25);
      const [x, y] = this.at ?? [width / 2, height / 2];
      const next = [Math.min(Math.max(x + steps[event.key][0] * step, 0), width - 1), Math.min(Math.max(y + steps[event.key][1] * step, 0), height - 1)];
      this.at = next;
    } else if (event.key === " ") {
      this.at ??= [width / 2, height / 2];
      this.#stroke(this.at, this.at);
      this.painted();
    } else return false;
    return true;
  }

  draw(context, panes) {
    const pane = panes[this.slot.side];
    const { rectangle } = pane;
    context.save();
    context.beginPath();
    context.rect(rectangle.x, rectangle.y, rectangle.width, rectangle.height);
    context.clip();
    drawMask(context, pane, this.slot.mask);
    if (this.at) {
      const [x, y] = pane.put(...this.at);
      const radius = (this.size / 2) * pane.scale;
      for (const [colour, width] of [["#000", 3], ["#fff", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.stroke();
      }
    }
    context.restore();
  }
}

/** A mask over its image: dark red where keypoints are left out. */
function drawMask(context, pane, mask) {
  if (!mask) return;
  const tinted = el("canvas", { width: mask.width, height: mask.height });
  const own = tinted.getContext("2d");
  own.drawImage(mask, 0, 0);
  own.globalCompositeOperation = "source-in";
  own.fillStyle = "#c4003a";
  own.fillRect(0, 0, mask.width, mask.height);
  const [x, y] = pane.put(-0.5, -0.5);
  context.globalAlpha = 0.5;
  context.drawImage(tinted, x, y, pane.image.width * pane.scale, pane.image.height * pane.scale);
  context.globalAlpha = 1;
}
