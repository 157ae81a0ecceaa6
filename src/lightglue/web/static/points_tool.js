/* Keypoints of one's own: click to set one, click it again to take it away; or arrows and the space bar. */

import { el } from "./dom.js";
import { t } from "./i18n.js";

const REACH = 9; // CSS px

export class PointsTool {
  constructor(slot, leave, changed) {
    this.slot = slot;
    this.leave = leave;
    this.changed = changed;
    this.cross = null;
    this.scale = 1;
  }

  controls() {
    return [
      el("span", {}, t("points_hint", { letter: "AB"[this.slot.side] })),
      el("button", { type: "button", onclick: () => this.#change(this.slot.points.slice(0, -1)) }, t("undo")),
      el("button", { type: "button", onclick: () => this.#change([]) }, t("clear")),
      el("button", { type: "button", class: "primary", onclick: this.leave }, t("done")),
    ];
  }

  #change(points) {
    this.slot.points = points;
    this.changed();
    this.redraw();
  }

  #toggle([x, y]) {
    const near = this.slot.points.findIndex(([px, py]) => Math.hypot(px - x, py - y) * this.scale < REACH);
    if (near >= 0) return this.#change(this.slot.points.filter((_, i) => i !== near));
    const { width, height } = this.slot.image;
    if (x < -0.5 || y < -0.5 || x > width - 0.5 || y > height - 0.5) return;
    this.#change([...this.slot.points, [Math.round(x * 100) / 100, Math.round(y * 100) / 100]]);
  }

  up(side, point, { moved, cancelled }) {
    if (side === this.slot.side && !moved && !cancelled) this.#toggle(point);
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { width, height } = this.slot.image;
    if (event.key === "Escape" || event.key === "Enter") this.leave();
    else if (steps[event.key]) {
      const step = event.shiftKey ? 20 : 2;
      const [x, y] = this.cross ?? [width / 2, height / 2];
      this.cross = [Math.min(Math.max(x + steps[event.key][0] * step, 0), width - 1), Math.min(Math.max(y + steps[event.key][1] * step, 0), height - 1)];
    } else if (event.key === " ") {
      this.cross ??= [width / 2, height / 2];
      this.#toggle(this.cross);
    } else if (event.key === "Backspace") this.#change(this.slot.points.slice(0, -1));
    else return false;
    return true;
  }

  draw(context, panes) {
    const pane = panes[this.slot.side];
    this.scale = pane.scale;
    const ring = ([x, y], radius, colour) => {
      const [px, py] = pane.put(x, y);
      if (!pane.holds(px, py)) return;
      for (const [stroke, width] of [["#000", 4], [colour, 2]]) {
        context.strokeStyle = stroke;
        context.lineWidth = width;
        context.beginPath();
        context.arc(px, py, radius, 0, 2 * Math.PI);
        context.moveTo(px - radius - 4, py);
        context.lineTo(px + radius + 4, py);
        context.moveTo(px, py - radius - 4);
        context.lineTo(px, py + radius + 4);
        context.stroke();
      }
    };
    for (const point of this.slot.points) ring(point, 4, "#33f0c0");
    if (this.cross) ring(this.cross, 9, "#ffffff");
  }
}
