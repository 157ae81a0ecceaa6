/* The pair: two images in, what is found of them out. */

import { Comparison } from "./compare.js";
import { add, clear, el } from "./dom.js";
import { Downloads } from "./downloads.js";
import { hasWord, t, translate } from "./i18n.js";
import { bind } from "./keys.js";
import { OptionsForm } from "./options_form.js";
import { Slot } from "./slot.js";
import { loadPicture } from "./viewer.js";
import { WeightsOffer } from "./weights_offer.js";
import { Workbench } from "./workbench.js";

const EXAMPLE = "example";
const MODELS = ["", "homography", "fundamental"]; // "": none is estimated
const USUAL_MODEL = "fundamental"; // true of any scene that stands still
const ON_PAGE = ["features", "effort", "mask0", "mask1"]; // options with controls of their own

export function mount(root, app) {
  const page = new PairPage(root, app);
  return { show: (params) => page.show(params), hide: () => page.bench.viewer.set({ second: true }, true) };
}

class PairPage {
  constructor(root, app) {
    this.app = app;
    this.root = root;
    this.result = null; // the pair's JSON
    this.model = USUAL_MODEL; // that is shown
    this.chosenModel = USUAL_MODEL; // for the next pair
    this.running = null;
    this.form = new OptionsForm(ON_PAGE);
    this.slots = [0, 1].map((side) => new Slot(side, app, {
      changed: () => this.#slotChanged(),
      tool: (tool) => this.#tool(tool),
    }));
    this.#build();
    this.bench.addEventListener("change", () => this.#write());
    this.#files();
    bind(["Escape"], "Esc", "key_stop", () => this.stop(), () => this.running !== null && !root.hidden);
    bind(["m"], "M", "key_match", () => this.match(), () => !root.hidden);
    app.options().then((options) => this.#options(options), (error) => app.notify(app.explain(error)));
  }

  #build() {
    const select = (id, word) => {
      const control = el("select", { id, onchange: () => this.offer.show() });
      return [control, el("label", {}, el("span", { text: word }), control, el("span", { class: "fault", "data-fault": id }))];
    };
    const [features, featuresLabel] = select("features", "features");
    const [effort, effortLabel] = select("effort", "effort");
    this.features = features;
    this.effort = effort;
    this.matchButton = el("button", { type: "button", class: "primary", text: "match", onclick: () => this.match() });
    this.stopButton = el("button", { type: "button", class: "stop", text: "stop", hidden: true, onclick: () => this.stop() });
    this.compareButton = el("button", { type: "button", text: "compare", disabled: true, onclick: () => this.comparison.ask() });
    this.act = el("div", { class: "act" }, el("div", { class: "row" }, featuresLabel, effortLabel),
      el("div", { class: "row" }, this.matchButton, this.stopButton, this.compareButton));
    this.inputs = el("div", { class: "inputs" }, this.slots.map((slot) => slot.element), this.act);
    this.working = el("div", { class: "working", hidden: true });
    this.offer = new WeightsOffer(this.app, () => this.features.value);
    this.more = el("details", { class: "more card" }, el("summary", { text: "more_options" }), this.form.element);
    this.form.element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
      event.preventDefault(); // or the key would press Stop, which has the focus then
      this.match();
    });
    this.toolRow = el("div", { class: "mode tool", hidden: true });
    const bench = el("div");
    this.root.append(this.inputs, this.offer.element, this.more, this.working, bench);
    this.bench = new Workbench(bench, {
      estimate: (model, threshold) => this.#estimate(model, threshold),
      warp: (threshold) => this.#estimate("homography", threshold, true).then((found) => found?.matrix ?? null),
      geometryControls: () => this.#geometryControls(),
    });
    this.bench.bar.after(this.toolRow);
    this.downloads = new Downloads(this.app, () => this.#asShown());
    this.bench.side.append(this.downloads.element);
    this.comparison = new Comparison(this.bench, this.app, (options) => this.#run(options), () => this.#write(), (error) => this.#failed(error));
    translate(this.root);
  }

  #options(options) {
    this.known = options;
    const fill = () => {
      const chosen = [this.features.value, this.effort.value];
      clear(this.features).append(...options.features.map(({ name }) => el("option", { value: name }, name)));
      clear(this.effort).append(...options.efforts.map((name) => el("option", { value: name }, t(`effort_${name}`))));
      for (const [i, control] of [this.features, this.effort].entries()) if (chosen[i]) control.value = chosen[i];
    };
    fill();
    const usual = (name) => options.match.find((each) => each.name === name)?.default;
    this.features.value = usual("features") ?? this.features.value;
    this.effort.value = usual("effort") ?? this.effort.value;
    document.addEventListener("languagechange", fill);
    this.form.build(options.match);
    this.comparison.setOptions(options);
    this.offer.learn(options);
  }

  /** Images that are dropped on the picture go to that side; those pasted, or dropped elsewhere, into the first free slot. */
  #files() {
    const take = (files, side = null) => {
      const images = [...files].filter((file) => file.type.startsWith("image/") || /\.(heic|heif|tiff?)$/i.test(file.name)).slice(0, 2);
      if (images.length === 2) images.forEach((file, side) => this.slots[side].take(file));
      else if (images.length) (side ?? this.slots.find((slot) => !slot.own) ?? this.slots[1]).take(images[0]);
    };
    document.addEventListener("paste", (event) => {
      if (this.root.hidden || !event.clipboardData?.files.length) return;
      event.preventDefault();
      take(event.clipboardData.files);
    });
    document.addEventListener("dragover", (event) => event.preventDefault()); // a file beside its place must not replace the page
    document.addEventListener("drop", (event) => {
      if (event.defaultPrevented) return;
      event.preventDefault();
      if (!this.root.hidden) take(event.dataTransfer.files, this.slots[this.bench.viewer.sideAt(event)] ?? null);
    });
  }

  // The address

  async show(params) {
    const id = params.get("r") ?? EXAMPLE;
    if (this.result?.id === id) {
      this.bench.restore(params);
      return;
    }
    try {
      const json = await this.app.api.get(`results/${encodeURIComponent(id)}`);
      await this.#show(json, params);
    } catch (error) {
      if (id === EXAMPLE) return this.app.notify(this.app.explain(error));
      this.app.notify([404, 410].includes(error.status) ? t("result_gone") : this.app.explain(error));
      this.app.state.go("pair", {});
      return this.result ? null : this.show(new URLSearchParams());
    }
    const second = params.get("c");
    if (second) await this.comparison.showResult(second);
  }

  #write() {
    if (!this.result) return;
    const r = this.result.id === EXAMPLE ? null : this.result.id;
    this.app.state.write("pair", { r, c: this.comparison.id, ...this.bench.params() });
  }

  // Images and results

  async #show(json, params = null) {
    const pictures = await Promise.all(json.images.map((image) => this.#picture(image)));
    this.result = json;
    this.comparison.close();
    this.slots.forEach((slot, side) => slot.adopt(json.images[side], pictures[side]));
    if (json.geometry) json.geometry.score_threshold ??= json.threshold;
    this.model = json.geometry?.model ?? this.chosenModel;
    this.bench.show(json, pictures, params);
    this.compareButton.disabled = false;
    this.downloads.show();
    if (json.id !== EXAMPLE) this.app.computedOn(json.device);
    if (!json.geometry && this.model) this.#reestimate();
    this.#write();
  }

  #picture(image) {
    const known = this.slots.find((slot) => slot.image?.id === image.id && slot.picture);
    if (known) return known.picture;
    return loadPicture(this.app.api.url(`images/${encodeURIComponent(image.id)}`));
  }

  #slotChanged() {
    // Whoever brings an image of their own is done with the example.
    if (this.slots.some((slot) => slot.own)) this.slots.forEach((slot) => slot.image?.id.startsWith(`${EXAMPLE}-`) && !slot.own && slot.empty());
    const images = this.slots.map((slot) => slot.image);
    const shown = this.result && images.every((image, i) => image?.id === this.result.images[i].id);
    if (!shown) {
      this.result = null;
      this.comparison.close();
      this.compareButton.disabled = true;
      this.downloads.hide();
      this.bench.showImages(images.map((image) => image ?? { name: "", width: 4, height: 3 }), this.slots.map((slot) => slot.picture));
    }
    this.#fault(null, "");
    this.bench.viewer.redraw();
  }

  #tool(tool) {
    for (const slot of this.slots) if (slot.tool && slot.tool !== tool) slot.leaveTool();
    this.bench.viewer.tool = tool;
    this.bench.viewer.marks.classList.toggle("cross", tool !== null);
    this.bench.viewer.marks.style.touchAction = tool ? "none" : "pan-y";
    clear(this.toolRow);
    this.toolRow.hidden = tool === null;
    if (tool) {
      if (this.bench.viewer.together) this.bench.setMode("lines");
      tool.redraw = () => this.bench.viewer.redraw(false);
      this.toolRow.append(...tool.controls());
      this.toolRow.scrollIntoView({ block: this.bench.viewer.container.getBoundingClientRect().bottom > innerHeight ? "start" : "nearest" });
    }
    this.bench.viewer.redraw(false);
  }

  // Matching

  settings() {
    return { ...this.form.values(), ...(this.known ? { features: this.features.value, effort: this.effort.value } : {}) };
  }

  async match() {
    if (this.running) return;
    for (const slot of this.slots) slot.leaveTool();
    const missing = this.slots.find((slot) => !slot.image);
    if (missing) return missing.fail(t("image_missing", { letter: "AB"[missing.side] }));
    try {
      const json = await this.#run(this.settings());
      if (json) {
        await this.#show(json);
        this.app.announce(this.bench.resultLine.textContent);
      }
    } catch (error) {
      this.#failed(error);
    }
  }

  /** The result of the slots' images with these options; null where the user stopped it. Throws ApiError. */
  async #run(options) {
    this.#fault(null, "");
    this.app.notify("");
    const request = { image0: this.slots[0].image.id, image1: this.slots[1].image.id, options };
    const masks = await Promise.all(this.slots.map((slot) => slot.maskBase64()));
    if (masks.some(Boolean)) request.masks = Object.fromEntries(masks.flatMap((mask, i) => (mask ? [[String(i), mask]] : [])));
    const points = this.slots.map((slot) => slot.points);
    if (points.some((each) => each.length)) {
      request.keypoints = Object.fromEntries(points.flatMap((each, i) => (each.length ? [[String(i), each]] : [])));
    }
    this.#setRunning(this.app.api.run("match", request, { onProgress: (progress) => this.#progress(progress) }));
    try {
      const job = await this.running;
      return await this.app.api.get(`results/${encodeURIComponent(job.result)}`);
    } catch (error) {
      if (error.code === "cancelled") {
        this.app.announce(t("stopped_by_you"));
        return null;
      }
      throw error;
    } finally {
      this.#setRunning(null);
    }
  }

  stop() {
    if (!this.running || this.stopping) return;
    this.stopping = true; // it ends at its next step
    this.workingText.textContent = t("stopping");
    this.stopButton.disabled = true;
    this.running.cancel();
  }

  #setRunning(running) {
    this.running = running;
    this.stopping = false;
    this.stopButton.disabled = false;
    const held = [this.stopButton, this.matchButton].includes(document.activeElement);
    this.matchButton.hidden = running !== null;
    this.stopButton.hidden = running === null;
    this.compareButton.disabled = running !== null || !this.result;
    this.working.hidden = running === null;
    if (!running) {
      if (held) this.matchButton.focus({ preventScroll: true });
      return;
    }
    this.workingText = el("span", {}, t("stage_waiting"));
    this.workingBar = el("progress", { max: 1 });
    clear(this.working).append(this.workingText, this.workingBar);
    if (held) setTimeout(() => this.running && this.stopButton.focus({ preventScroll: true }));
  }

  #progress(progress) {
    if (!this.running || this.stopping || !progress?.stage) return;
    const { stage } = progress;
    this.workingText.textContent = [hasWord(`stage_${stage}`) ? t(`stage_${stage}`) : stage, progress.text].filter(Boolean).join(": ");
    if (progress.total) this.workingBar.value = progress.done / progress.total;
    else this.workingBar.removeAttribute("value");
  }

  // Failures, where they belong

  #failed(error) {
    const text = this.app.explain(error);
    const busy = error.status === 429 ? ` ${t("try_in", { seconds: error.retryAfter ?? 5 })}` : "";
    if (this.offer.refused(error)) return;
    this.#fault(error.field, text + busy);
  }

  #fault(field, text) {
    for (const control of [this.features, this.effort]) {
      const own = field === control.id;
      control.toggleAttribute("aria-invalid", false);
      if (own && text) control.setAttribute("aria-invalid", "true");
      this.act.querySelector(`[data-fault="${control.id}"]`).textContent = own ? text : "";
      if (own && text) control.focus();
    }
    for (const slot of this.slots) slot.fail("");
    this.form.fault(null, "");
    if (!text) return;
    const side = /^(?:image|mask|keypoints|masks\.|keypoints\.)([01])$/.exec(field ?? "");
    if (side && !this.form.has(field)) return this.slots[Number(side[1])].fail(text);
    if (this.form.has(field)) {
      this.more.open = true;
      return this.form.fault(field, text);
    }
    if (field !== "features" && field !== "effort") this.app.notify(text);
  }

  // Geometry

  async #estimate(model, score_threshold, quiet = false) {
    const options = { geometry: model, filter_threshold: score_threshold };
    if (!quiet && this.pixels) options.threshold = this.pixels;
    try {
      const found = await this.app.api.post("geometry", { result: this.result.id, options });
      this.estimateFault = "";
      return { ...found, score_threshold };
    } catch (error) {
      this.estimateFault = this.app.explain(error);
      return null;
    }
  }

  async #reestimate() {
    const { result, model } = this;
    const geometry = model ? await this.#estimate(model, this.bench.view.threshold) : null;
    if (this.result === result && this.model === model && this.bench.pair) this.bench.setGeometry(geometry);
  }

  /** The result, and how files must be made to hold what is seen. */
  #asShown() {
    const shown = { filter_threshold: this.bench.view.threshold };
    const geometry = this.bench.pair?.geometry;
    if (MODELS.includes(geometry?.model)) Object.assign(shown, { geometry: geometry.model, threshold: geometry.threshold });
    return { id: this.result.id, query: new URLSearchParams(shown) };
  }

  #geometryControls() {
    const models = MODELS.includes(this.model) ? MODELS : [...MODELS, this.model];
    const model = el("select", { "aria-label": t("geometry_title"), onchange: () => {
      this.model = this.chosenModel = model.value;
      this.#reestimate();
    } }, models.map((name) => el("option", { value: name, selected: name === this.model }, t(name ? `model_${name}` : "model_none"))));
    model.value = this.model;
    const pixels = el("input", {
      type: "number", min: 0.1, max: 1000, step: 0.1, "aria-label": t("inlier_threshold"), title: t("inlier_threshold"),
      placeholder: this.model === "homography" ? "2" : "1",
      onchange: () => {
        this.pixels = pixels.value === "" || !(Number(pixels.value) > 0) ? null : Number(pixels.value);
        this.#reestimate();
      },
    });
    pixels.value = this.pixels ?? "";
    return add(el("div", {}), el("div", { class: "row geometry" }, model, el("label", { class: "check" }, pixels, "px")),
      el("p", { class: "fault" }, this.estimateFault ?? ""));
  }
}

