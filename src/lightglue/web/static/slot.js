/* One of the two images: choose, drop, paste, photograph; turn; a mask; keypoints of one's own. */

import { el, icon } from "./dom.js";
import { bytesText, t, translate } from "./i18n.js";
import { MaskTool } from "./mask_tool.js";
import { PointsTool } from "./points_tool.js";
import { loadPicture } from "./viewer.js";

const TYPES = "image/*,.heic,.heif,.tif,.tiff,.webp";

export class Slot {
  /** @param on { changed() after another image, tool(tool or null) when a tool takes the pointer } */
  constructor(side, app, on) {
    this.side = side;
    this.app = app;
    this.on = on;
    this.image = null;
    this.picture = null;
    this.points = []; // [[x, y], ...] px
    this.mask = null; // a canvas whose painted pixels are left out
    this.tool = null;
    this.bytes = null;
    this.own = false; // whether the user chose it
    this.#build();
    document.addEventListener("languagechange", () => this.#said());
  }

  #build() {
    const letter = "AB"[this.side];
    this.thumb = el("canvas", { class: "thumb", width: 180, height: 134, "aria-hidden": "true" });
    this.name = el("span", { class: "name" });
    this.about = el("span", { class: "about" });
    this.file = el("input", { type: "file", class: "unseen", accept: TYPES, id: `file${this.side}`, onchange: (event) => this.#chosen(event) });
    this.camera = el("input", { type: "file", class: "unseen", accept: "image/*", capture: "environment", id: `camera${this.side}`,
      onchange: (event) => this.#chosen(event) });
    const touch = matchMedia("(pointer: coarse)").matches;
    this.turnButton = el("button", { type: "button", class: "plain", "title-text": "turn", "label-text": "turn", onclick: () => this.turn() }, icon("turn"));
    this.maskButton = el("button", { type: "button", class: "plain", "title-text": "mask", "label-text": "mask", onclick: () => this.#use(MaskTool) }, icon("mask"));
    this.pointsButton = el("button", { type: "button", class: "plain", "title-text": "points", "label-text": "points", onclick: () => this.#use(PointsTool) }, icon("points"));
    this.bar = el("progress", { max: 1, hidden: true });
    this.fault = el("p", { class: "fault", role: "alert" });
    this.element = el("div", { class: "slot card", role: "group", "aria-label": letter },
      this.thumb, el("span", { class: "letter", "aria-hidden": "true" }, letter), this.name, this.about,
      el("div", { class: "tools" },
        el("label", { class: "button choose" }, this.file, el("span", { text: "choose" })),
        touch ? el("label", { class: "button" }, this.camera, icon("camera"), el("span", { class: "unseen", text: "photograph" })) : null,
        this.turnButton, this.maskButton, this.pointsButton),
      this.bar, this.fault);
    for (const name of ["dragenter", "dragover"]) {
      this.element.addEventListener(name, (event) => {
        event.preventDefault();
        this.element.classList.add("over");
      });
    }
    for (const name of ["dragleave", "drop"]) this.element.addEventListener(name, () => this.element.classList.remove("over"));
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) this.take(file);
    });
    translate(this.element);
    this.#said();
  }

  #said() {
    const { image } = this;
    this.name.textContent = image?.name ?? t("image_none", { letter: "AB"[this.side] });
    this.name.title = image?.name ?? "";
    const notes = [];
    if (image) notes.push(`${image.width} × ${image.height}`);
    if (image && this.bytes) notes.push(bytesText(this.bytes));
    if (this.mask) notes.push(t("masked"));
    if (this.points.length) notes.push(t("own_points", { count: this.points.length }));
    this.about.textContent = image ? notes.join(" · ") : t("image_drop");
    for (const button of [this.turnButton, this.maskButton, this.pointsButton]) button.disabled = !image;
    this.maskButton.setAttribute("aria-pressed", String(this.tool instanceof MaskTool));
    this.pointsButton.setAttribute("aria-pressed", String(this.tool instanceof PointsTool));
  }

  #chosen(event) {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) this.take(file);
  }

  /** Upload a file and show it. */
  async take(file) {
    this.fail("");
    this.bar.hidden = false;
    this.bar.removeAttribute("value");
    this.own = true;
    const turn = (this.taking = {}); // a later choice wins
    try {
      const image = await this.app.api.upload(file, (share) => { this.bar.value = share; });
      const picture = await loadPicture(this.app.api.url(`images/${encodeURIComponent(image.id)}`));
      if (this.taking !== turn) return;
      this.bytes = file.size;
      this.set(image, picture);
      this.app.announce(t("image_taken", { letter: "AB"[this.side], name: image.name }));
      this.on.changed();
    } catch (error) {
      if (this.taking === turn) this.fail(error.name === "EncodingError" ? t("image_unshown") : this.app.explain(error));
    } finally {
      if (this.taking === turn) this.bar.hidden = true;
    }
  }

  /** Be the image of a result, with what was painted if it is the same one. */
  adopt(image, picture) {
    if (this.image?.id !== image.id) {
      this.bytes = null;
      this.set(image, picture);
    }
  }

  /** No image again. */
  empty() {
    this.leaveTool();
    this.image = this.picture = this.mask = this.bytes = null;
    this.points = [];
    this.thumb.getContext("2d").clearRect(0, 0, this.thumb.width, this.thumb.height);
    this.#said();
  }

  set(image, picture) {
    this.leaveTool();
    this.image = image;
    this.picture = picture;
    this.mask = null;
    this.points = [];
    const context = this.thumb.getContext("2d");
    const scale = Math.max(this.thumb.width / image.width, this.thumb.height / image.height);
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, this.thumb.width, this.thumb.height);
    context.drawImage(picture, (this.thumb.width - image.width * scale) / 2, (this.thumb.height - image.height * scale) / 2,
      image.width * scale, image.height * scale);
    this.#said();
  }

  /** A quarter clockwise: the pixels as the page shows them, without loss, as a new image. */
  async turn() {
    const { width, height, name } = this.image;
    const canvas = el("canvas", { width: height, height: width });
    const context = canvas.getContext("2d");
    context.translate(height, 0);
    context.rotate(Math.PI / 2);
    context.drawImage(this.picture, 0, 0, width, height);
    const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
    const base = name.replace(/\.\w+$/, "").replace(/-turned(\d*)$/, "");
    const before = Number(/-turned(\d+)\.\w+$/.exec(name)?.[1] ?? 0);
    const degrees = (before + 90) % 360;
    await this.take(new File([blob], `${base}${degrees ? `-turned${degrees}` : ""}.png`, { type: "image/png" }));
  }

  #use(Tool) {
    if (this.tool instanceof Tool) return this.leaveTool();
    this.leaveTool();
    this.tool = new Tool(this, () => this.leaveTool(), () => this.#said());
    this.#said();
    this.on.tool(this.tool);
  }

  leaveTool() {
    if (!this.tool) return;
    this.tool = null;
    this.#said();
    this.on.tool(null);
  }

  /** The mask as a PNG in base64: black where it was painted, white elsewhere; null without one. */
  async maskBase64() {
    if (!this.mask) return null;
    const { width, height } = this.image;
    const canvas = el("canvas", { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.mask, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    const { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      const value = data[at + 3] > 127 ? 0 : 255;
      data[at] = data[at + 1] = data[at + 2] = value;
      data[at + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
  }

  fail(text) {
    this.fault.textContent = text;
    if (text) this.element.scrollIntoView({ block: "nearest" });
  }
}

