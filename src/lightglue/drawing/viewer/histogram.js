/* How many matches have which score, and the slider below it. */

import { el } from "./dom.js";
import { number, t } from "./i18n.js";
import { scoreColour } from "./pair.js";

const BINS = 50;
const INSET = 8; // CSS px: half a slider's thumb, so that bars stand above their place on the slider

export class Histogram {
  /** @param onThreshold called with the threshold that the user has chosen */
  constructor(onThreshold) {
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.slider = el("input", {
      type: "range", min: 0, max: 1, step: 0.01, id: "threshold",
      oninput: () => onThreshold(Number(this.slider.value)),
    });
    this.shown = el("output", { class: "n", for: "threshold" });
    this.ends = el("div", { class: "ends" }, el("span", {}, "0"), el("span", { text: "score" }), el("span", {}, "1"));
    this.element = el("div", { class: "card" },
      el("h3", {}, el("label", { for: "threshold", text: "threshold" }), this.shown),
      el("div", { class: "histogram" }, this.canvas, this.slider, this.ends));
    const drag = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = this.canvas.getBoundingClientRect();
      onThreshold(Math.round(((event.clientX - box.left - INSET) / (box.width - 2 * INSET)) * 100) / 100);
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      drag(event);
    });
    this.canvas.addEventListener("pointermove", drag);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    document.addEventListener("themechange", () => this.draw());
  }

  setPair(pair) {
    this.counts = pair.histogram(BINS);
    this.pair = pair;
  }

  setThreshold(threshold) {
    this.threshold = threshold;
    if (Number(this.slider.value) !== threshold) this.slider.value = threshold;
    this.shown.textContent = number(threshold, 2);
    this.slider.setAttribute("aria-valuetext", t("threshold_text", { threshold: number(threshold, 2), count: this.pair.countAbove(threshold) }));
    this.draw();
  }

  draw() {
    const width = this.canvas.clientWidth;
    if (!this.counts || !width) return;
    const height = this.canvas.clientHeight;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.canvas);
    const most = Math.sqrt(Math.max(1, ...this.counts)); // roots, since nearly all are at both ends
    const step = (width - 2 * INSET) / BINS;
    for (let i = 0; i < BINS; i++) {
      if (!this.counts[i]) continue;
      const tall = Math.max(2, (Math.sqrt(this.counts[i]) / most) * (height - 4));
      const on = (i + 1) / BINS > this.threshold + 1e-9;
      context.fillStyle = on ? scoreColour((i + 0.5) / BINS) : style.getPropertyValue("--bar");
      context.globalAlpha = on ? 1 : 0.6;
      context.fillRect(INSET + i * step, height - tall, Math.max(1, step - 1), tall);
    }
    context.globalAlpha = 1;
    context.fillStyle = style.getPropertyValue("--ink");
    context.fillRect(INSET + this.threshold * (width - 2 * INSET) - 0.75, 0, 1.5, height);
  }
}
