/* Everything around the linked canvas that needs no service: views, slider over the histogram, what is known of a match and
 * of the pair, the table. The page and pair.html both are this; the page adds what asks the service.
 *
 * const bench = new Workbench(root, host);   host, all optional:
 *   estimate(model, threshold) -> Promise of a geometry; the threshold or the model has changed
 *   warp() -> Promise of a homography (3 x 3 rows) or null, for swipe, blink and fade of a pair without one
 * bench.show(pair json, [picture, picture], params?)    bench.showImages(images, pictures)
 * bench.side: the column beside the canvas, to which the host may append cards
 * bench.params() -> what of the view is not as usual, for the address;  "change" is dispatched when that may have changed
 */

import { clear, el, icon } from "./dom.js";
import { number, t, translate } from "./i18n.js";
import { bind } from "./keys.js";
import { Histogram } from "./histogram.js";
import { MatchTable } from "./match_table.js";
import { Pair } from "./pair.js";
import { drawPatch } from "./patch.js";
import { motionReduced } from "./theme.js";
import { MODES, Viewer, WARPS } from "./viewer.js";

const MODE_KEYS = { lines: "N", points: "P", layers: "L", swipe: "S", blink: "B", fade: "O" };
const FILTERS = ["all", "inliers", "outliers"];
const STEP = 0.01; // of the threshold

export class Workbench extends EventTarget {
  constructor(root, host = {}) {
    super();
    this.host = host;
    this.pair = null;
    this.root = root;
    this.#build(root);
    this.#keys();
    this.viewer.addEventListener("view", ({ detail }) => this.#viewed(detail));
    this.viewer.addEventListener("hover", ({ detail }) => this.#hovered(detail));
    this.viewer.addEventListener("camera", () => this.#changed());
    document.addEventListener("languagechange", () => this.#said());
    this.showImages([], [null, null]);
  }

  get view() {
    return this.viewer.view;
  }

  // What is shown

  showImages(images, pictures) {
    this.pair = null;
    this.viewer.setPair(null);
    this.viewer.set({ pin: null, filter: "all", ...(WARPS.has(this.view.mode) ? { mode: "lines" } : {}) }, true);
    this.viewer.setImages(images, pictures);
    this.#all();
  }

  show(json, pictures, params = null) {
    const pair = new Pair(json);
    this.pair = pair;
    this.viewer.setPair(pair);
    this.viewer.setImages(pair.images, pictures);
    this.histogram.setPair(pair);
    this.viewer.set({
      threshold: Math.max(json.threshold ?? 0, pair.floor), pin: null, layer: Math.max(1, (json.layers?.stop ?? 1) - 1),
      filter: "all", mode: this.view.mode === "layers" && !this.#hasLayers() ? "lines" : this.view.mode,
    }, true);
    if (params) this.restore(params);
    this.#all();
    this.#needed();
    if (pair.geometry && pair.geometry.score_threshold !== undefined
      && pair.countAbove(pair.geometry.score_threshold) !== this.viewer.count) this.#estimateSoon();
  }

  setGeometry(geometry) {
    this.pair.setGeometry(geometry);
    if (geometry?.warp) this.pair.json.warp = geometry.warp;
    this.viewer.warp = null;
    this.viewer.layout();
    this.#all();
  }

  #hasLayers() {
    return (this.pair?.dropped[0].length ?? 0) + (this.pair?.dropped[1].length ?? 0) > 0;
  }

  params() {
    const { view, viewer } = this;
    const { camera } = viewer;
    const usual = this.pair ? Math.max(this.pair.json.threshold ?? 0, this.pair.floor) : 0;
    return {
      t: this.pair && view.threshold !== usual ? +view.threshold.toFixed(4) : null,
      view: view.mode === "lines" ? null : view.mode,
      f: view.filter === "all" ? null : view.filter,
      layer: view.mode === "layers" ? view.layer : null,
      split: view.mode === "swipe" ? view.split.toFixed(3) : null,
      o: view.mode === "fade" ? view.opacity.toFixed(2) : null,
      pin: view.pin?.match ?? null,
      z: camera ? [camera.zoom.toFixed(3), camera.x.toFixed(1), camera.y.toFixed(1)].join(",") : null,
      apart: view.linked ? null : 1,
      side: view.layout === "auto" ? null : view.layout,
      swap: view.swapped ? 1 : null,
    };
  }

  restore(params) {
    const real = (name, low, high) => {
      const value = Number.parseFloat(params.get(name));
      return Number.isFinite(value) ? Math.min(Math.max(value, low), high) : null;
    };
    const among = (name, values) => (values.includes(params.get(name)) ? params.get(name) : null);
    const found = {
      threshold: real("t", this.pair?.floor ?? 0, 1), mode: among("view", MODES), filter: among("f", FILTERS),
      layer: real("layer", 1, this.pair?.layers?.stop ?? 1), split: real("split", 0, 1), opacity: real("o", 0, 1),
      layout: among("side", ["side", "stack"]), linked: params.get("apart") === "1" ? false : null,
      swapped: params.get("swap") === "1" ? true : null,
    };
    const pin = real("pin", 0, (this.pair?.size ?? 0) - 1);
    if (pin !== null) found.pin = { match: Math.round(pin) };
    this.viewer.set(Object.fromEntries(Object.entries(found).filter(([, value]) => value !== null)), true);
    const z = (params.get("z") ?? "").split(",").map(Number);
    if (z.length === 3 && z.every(Number.isFinite)) this.viewer.camera = { zoom: z[0], x: z[1], y: z[2] };
  }

  // Its parts

  #build(root) {
    root.classList.add("bench");
    const place = el("div");
    this.modeButtons = Object.fromEntries(MODES.map((mode) => [mode, el("button", {
      type: "button", text: `mode_${mode}`, "title-text": `mode_${mode}_title`, onclick: () => this.setMode(mode),
    })]));
    this.filterButtons = Object.fromEntries(FILTERS.map((name) => [name, el("button", {
      type: "button", text: `filter_${name}`, onclick: () => this.viewer.set({ filter: name }),
    })]));
    const tool = (name, word, onclick) => el("button", {
      type: "button", class: "plain", "title-text": word, "label-text": word, onclick,
    }, icon(name));
    this.linkButton = tool("link", "link", () => this.#link());
    this.layoutButton = tool("stack", "layout", () => this.#layout());
    this.tools = el("span", { class: "tools" },
      tool("minus", "zoom_out", () => this.viewer.zoom(1 / 1.5)), tool("plus", "zoom_in", () => this.viewer.zoom(1.5)),
      tool("fit", "fit", () => this.viewer.fit()), this.linkButton, this.layoutButton,
      tool("swap", "swap", () => this.viewer.set({ swapped: !this.view.swapped })));
    this.modeRow = el("div", { class: "mode", hidden: true });
    this.resultLine = el("div", { class: "result", role: "status" });
    this.filterGroup = el("span", { class: "segments", role: "group", "label-text": "filter" }, Object.values(this.filterButtons));
    this.bar = el("div", { class: "bar" },
      el("span", { class: "segments", role: "group", "label-text": "views" }, Object.values(this.modeButtons)),
      this.filterGroup, this.tools);
    this.table = new MatchTable((match) => this.pin(match, true));
    this.stageCard = el("div", { class: "card" }, this.bar, place, this.modeRow, this.resultLine);
    this.stage = el("div", { class: "stage" }, this.stageCard, this.table.element);
    this.histogram = new Histogram((threshold) => this.setThreshold(threshold));
    this.matchCard = el("div", { class: "card", "aria-live": "polite" });
    this.factsCard = el("div", { class: "card" });
    this.geometryCard = el("div", { class: "card" });
    this.side = el("div", { class: "side" }, this.histogram.element, this.matchCard, this.geometryCard, this.factsCard);
    root.append(this.stage, this.side);
    this.viewer = new Viewer(place);
    this.blank = el("div", { class: "blank", text: "blank", hidden: true });
    place.append(this.blank);
    translate(root);
  }

  #keys() {
    const here = () => this.root.isConnected && !this.root.closest("[hidden]") && !this.root.hidden;
    const paired = () => here() && this.pair !== null;
    const step = (by) => () => this.setThreshold(this.view.threshold + by);
    bind(["ArrowLeft"], "←", "key_lower", step(-STEP), paired);
    bind(["ArrowRight"], "→", "key_higher", step(STEP), paired);
    bind(["j"], "J", "key_next", () => this.walk(1), paired);
    bind(["k"], "K", "key_previous", () => this.walk(-1), paired);
    for (const mode of MODES) {
      const again = mode === "lines" ? "lines" : null;
      bind([MODE_KEYS[mode].toLowerCase()], MODE_KEYS[mode], `key_${mode}`,
        () => this.setMode(this.view.mode === mode && !again ? "lines" : mode), paired);
    }
    bind(["f"], "F", "key_filter", () => this.viewer.set({
      filter: FILTERS[(FILTERS.indexOf(this.view.filter) + 1) % FILTERS.length],
    }), () => paired() && this.pair.inlier !== null);
    bind(["x"], "X", "key_swap", () => this.viewer.set({ swapped: !this.view.swapped }), here);
    bind(["u"], "U", "key_link", () => this.#link(), here);
    bind(["+", "="], "+", "key_in", () => this.viewer.zoom(1.5), here);
    bind(["-"], "-", "key_out", () => this.viewer.zoom(1 / 1.5), here);
    bind(["0"], "0", "key_fit", () => this.viewer.fit(), here);
    bind(["["], "[", "key_less", () => this.#nudge(-1), paired);
    bind(["]"], "]", "key_more", () => this.#nudge(1), paired);
    bind(["Escape"], "Esc", "key_unpin", () => (this.view.pin ? this.viewer.set({ pin: null }) : false), paired);
  }

  #nudge(by) {
    const { view } = this;
    const limited = (value) => Math.min(Math.max(value, 0), 1);
    if (view.mode === "layers") {
      this.viewer.set({ layer: Math.min(Math.max(view.layer + by, 1), this.pair.layers.stop) });
    } else if (view.mode === "swipe") this.viewer.set({ split: limited(view.split + by * 0.05) });
    else if (view.mode === "fade") this.viewer.set({ opacity: limited(view.opacity + by * 0.1) });
    else if (view.mode === "blink") this.viewer.set({ second: !view.second });
    else return false;
    this.#modeControls();
    return true;
  }

  #link() {
    this.viewer.set({ linked: !this.view.linked });
    if (this.view.linked) this.viewer.pan(0, 0);
  }

  #layout() {
    const [first, second] = this.viewer.panes.map((pane) => pane.rectangle);
    const isSide = Math.abs(first.x - second.x) > 1;
    this.viewer.set({ layout: isSide ? "stack" : "side" });
  }

  async setMode(mode) {
    this.viewer.set({ mode });
    await this.#needed();
  }

  /** A homography for those views that need one. */
  async #needed() {
    const { pair } = this;
    if (!pair || !WARPS.has(this.view.mode) || pair.homography) return;
    this.modeRow.hidden = false;
    clear(this.modeRow).append(t(this.host.warp ? "warp_wait" : "warp_none"));
    const matrix = await this.host.warp?.(this.view.threshold);
    if (this.pair !== pair) return;
    if (matrix) {
      pair.json.warp = { matrix };
      this.viewer.layout();
      this.viewer.set({ mode: this.view.mode });
    } else clear(this.modeRow).append(t("warp_none"));
  }

  setThreshold(threshold) {
    const found = Math.min(Math.max(threshold, this.pair.floor), 1); // below it, matches are not known
    this.viewer.set({ threshold: Math.round(found * 1e4) / 1e4 });
  }

  pin(match, look = false) {
    this.viewer.set({ pin: match === null ? null : { match } });
    if (look && match !== null) this.viewer.look(match);
  }

  /** To the next match that is shown, in the order of scores. */
  walk(by) {
    const { pair, viewer } = this;
    const { count } = viewer;
    if (!count) return;
    let k = this.view.pin?.match ?? (by > 0 ? -1 : count);
    for (let i = 0; i < count; i++) {
      k = (k + by + count) % count;
      if (pair.passes(k, this.view.filter)) return this.pin(k, true);
    }
  }

  // What is said

  #viewed(changes) {
    if ("threshold" in changes) {
      this.histogram.setThreshold(this.view.threshold);
      if (this.viewer.count !== this.counted) {
        this.#resultText();
        if (this.view.pin) this.#matchText();
      }
      this.#estimateSoon();
      this.#tableSoon();
    }
    if ("filter" in changes || "mode" in changes) this.#pressed();
    if ("filter" in changes) {
      this.#resultText();
      this.#tableSoon();
    }
    if ("mode" in changes || "second" in changes) this.#modeControls();
    if ("split" in changes || "opacity" in changes || "layer" in changes) this.#modeValue();
    if ("pin" in changes) {
      this.#matchText();
      this.table.mark(this.view.pin?.match ?? null);
    }
    if ("linked" in changes || "layout" in changes || "swapped" in changes) this.#pressed();
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new CustomEvent("change"));
  }

  #all() {
    const paired = this.pair !== null;
    this.blank.hidden = this.viewer.pictures.some(Boolean);
    this.root.classList.toggle("unpaired", !paired);
    for (const part of [this.histogram.element, this.matchCard, this.geometryCard, this.factsCard, this.table.element]) part.hidden = !paired;
    this.modeButtons.layers.disabled = !this.#hasLayers();
    for (const mode of MODES) if (mode !== "layers") this.modeButtons[mode].disabled = !paired;
    this.filterGroup.hidden = !this.pair?.inlier;
    if (!paired) {
      clear(this.resultLine);
      this.resultLine.hidden = true;
      this.modeRow.hidden = true;
      this.#pressed();
      return;
    }
    this.resultLine.hidden = false;
    this.histogram.setThreshold(this.view.threshold);
    this.#said();
    this.table.show(this.pair, this.viewer.count, this.view.filter, this.view.pin?.match ?? null);
  }

  /** All texts, in the language that is shown. */
  #said() {
    if (!this.pair) return;
    this.histogram.draw();
    this.#resultText();
    this.#matchText();
    this.#factsText();
    this.#geometryText();
    this.#modeControls();
    this.#pressed();
    this.#tableSoon();
  }

  #pressed() {
    for (const mode of MODES) this.modeButtons[mode].setAttribute("aria-pressed", String(mode === this.view.mode));
    for (const name of FILTERS) this.filterButtons[name].setAttribute("aria-pressed", String(name === this.view.filter));
    this.linkButton.setAttribute("aria-pressed", String(this.view.linked));
  }

  #resultText() {
    const { pair, viewer } = this;
    if (!pair) return;
    const { count } = viewer;
    this.counted = count;
    const parts = [];
    if (pair.inlier && count) parts.push(t("inliers_of", { inliers: pair.countInliers(count), model: t(`model_${pair.geometry.model}`) }));
    const { overlap, rotation, layers, pruned } = pair.json;
    if (pair.json.num_dropped) parts.push(t("dropped_for_overlap", { count: pair.json.num_dropped }));
    if (overlap !== null && overlap !== undefined) parts.push(t(overlap < 0.5 ? "overlap_low" : "overlap_is", { overlap: number(overlap, 3) }));
    if (rotation) parts.push(t("rotated_by", { rotation }));
    if (layers) parts.push(t("stopped", { stop: layers.stop, of: layers.of ?? layers.stop }));
    if (pruned) parts.push(t("pruned_shares", { first: Math.round(pruned[0] * 100), second: Math.round(pruned[1] * 100) }));
    clear(this.resultLine).append(
      el("strong", {}, t(count === 1 ? "one_match" : "matches_found", { count })),
      ...parts.flatMap((part) => [" ", el("span", {}, part)]),
      ...(pair.json.warnings ?? []).flatMap((text) => [" ", el("span", { class: "fault" }, text)]),
    );
  }

  #matchText() {
    const { pair, view } = this;
    const card = clear(this.matchCard);
    const { pin } = view;
    const button = (name, word, run) => el("button", { type: "button", class: "plain", "aria-label": t(word), title: t(word), onclick: run }, icon(name));
    const walk = el("div", { class: "walk" }, button("previous", "key_previous", () => this.walk(-1)),
      el("span", { class: "n" }, pin?.match === undefined ? t("match_walk")
        : t(pin.match < this.viewer.count ? "match_of" : "match_hidden", { k: pin.match + 1, count: this.viewer.count })),
      button("next", "key_next", () => this.walk(1)));
    card.append(el("h3", {}, t("match_title"),
      pin ? el("button", { type: "button", class: "plain", "aria-label": t("key_unpin"), onclick: () => this.viewer.set({ pin: null }) }, icon("close")) : ""));
    if (!pin) {
      card.append(el("p", { class: "quiet" }, t("match_hint")), walk);
      return;
    }
    const facts = el("dl", { class: "facts" });
    const fact = (word, text) => text !== null && facts.append(el("dt", {}, t(word)), el("dd", {}, text));
    const at = ([x, y]) => `${number(x, 1)}, ${number(y, 1)}`;
    const ends = pin.match !== undefined
      ? [0, 1].map((side) => [side, pair.end(pin.match, side), pair.matches[2 * pin.match + side]])
      : [[pin.side, pair.keypoint(pin.keypoint, pin.side), pin.keypoint]];
    const patches = el("div", { class: "patches" });
    for (const [side, point] of ends) {
      const canvas = el("canvas", { width: 256, height: 256, role: "img", "aria-label": t("patch_label", { letter: "AB"[side] }) });
      drawPatch(canvas, this.viewer.pictures[side], pair.images[side], point);
      patches.append(canvas);
    }
    card.append(patches);
    if (pin.match !== undefined) {
      fact("score", number(pair.scores[pin.match], 3));
      const inlier = pair.isInlier(pin.match);
      const error = pair.error(pin.match);
      if (inlier !== null) fact("fits", t(inlier ? "is_inlier" : "is_outlier") + (error === null ? "" : t("with_error", { error: number(error, 2) })));
    }
    for (const [side, point, keypoint] of ends) {
      fact(`point_${side}`, `${at(point)} px`);
      fact(`keypoint_${side}`, `${number(keypoint)}${this.#droppedText(keypoint, side)}`);
    }
    card.append(facts, walk);
  }

  #droppedText(keypoint, side) {
    const dropped = this.pair.droppedAt(keypoint, side);
    if (dropped === null) return "";
    return ` · ${dropped ? t("dropped_after", { layer: dropped }) : t("kept_to_end")}`;
  }

  #hovered(found) {
    if (!found) return this.viewer.say(null);
    const { pair } = this;
    const lines = [];
    if (found.match !== null) {
      lines.push(t("tip_match", { k: found.match + 1, score: number(pair.scores[found.match], 3) }));
      const inlier = pair.isInlier(found.match);
      if (inlier !== null) lines.push(t(inlier ? "is_inlier" : "is_outlier"));
    } else {
      const partner = pair.matchOf[found.side][found.keypoint];
      lines.push(t("tip_free"));
      if (partner >= 0) lines.push(t("tip_below", { score: number(pair.scores[partner], 3) }));
    }
    const dropped = pair.droppedAt(found.keypoint, found.side);
    if (dropped !== null) lines.push(dropped ? t("dropped_after", { layer: dropped }) : t("kept_to_end"));
    this.viewer.say(lines);
  }

  #factsText() {
    const { json } = this.pair;
    const facts = el("dl", { class: "facts" });
    const fact = (word, text) => text && facts.append(el("dt", {}, t(word)), el("dd", {}, text));
    fact("features", [json.features, json.matcher].filter(Boolean).join(" + "));
    fact("weights", json.weights);
    fact("keypoints", [0, 1].map((side) => number(this.pair.count(side))).join(" + "));
    fact("image_sizes", json.images.map(({ width, height }) => `${width} × ${height}`).join(", "));
    fact("precision", json.precision);
    fact("effort", json.effort && [t(`effort_${json.effort}`), json.escalated].filter(Boolean).join(": "));
    for (const [name, seconds] of Object.entries(json.seconds ?? {})) {
      fact(`time_${name}`, t("seconds", { seconds: number(seconds, 2) }));
    }
    clear(this.factsCard).append(el("h3", {}, t("facts_title")), facts);
  }

  #geometryText() {
    const { geometry } = this.pair;
    const card = clear(this.geometryCard);
    card.append(el("h3", {}, t("geometry_title"), geometry ? el("span", { class: "n" }, t(`model_${geometry.model}`)) : ""));
    if (this.host.geometryControls) card.append(this.host.geometryControls(this));
    if (!geometry) {
      if (!this.host.geometryControls) card.append(el("p", { class: "quiet" }, t("geometry_none")));
      return;
    }
    if (!geometry.matrix) {
      card.append(el("p", { class: "fault" }, geometry.failure ?? t("geometry_none")));
      return;
    }
    const facts = el("dl", { class: "facts" });
    facts.append(el("dt", {}, t("inliers")), el("dd", {}, number(geometry.inliers.length)),
      el("dt", {}, t("estimated_by")), el("dd", {}, `${geometry.method}, ${geometry.threshold} px`));
    const digits = (value) => {
      const text = Math.abs(value) < 1e-4 && value ? value.toExponential(2) : value.toPrecision(5);
      return text.padStart(11);
    };
    card.append(facts, el("pre", { class: "matrix", tabindex: "0", "aria-label": t("matrix") },
      geometry.matrix.map((row) => row.map(digits).join(" ")).join("\n")));
  }

  #estimateSoon() {
    clearTimeout(this.estimating);
    const { pair, host } = this;
    if (!pair?.geometry || !host.estimate) return;
    this.estimating = setTimeout(async () => {
      const threshold = this.view.threshold;
      if (pair.geometry.score_threshold === threshold) return;
      const geometry = await host.estimate(pair.geometry.model, threshold);
      if (geometry && this.pair === pair && this.view.threshold === threshold) this.setGeometry(geometry);
    }, 250);
  }

  #tableSoon() {
    clearTimeout(this.tabling);
    this.tabling = setTimeout(() => {
      if (this.pair) this.table.show(this.pair, this.viewer.count, this.view.filter, this.view.pin?.match ?? null);
    }, 150);
  }

  /** The row below the canvas: what the view has to set. */
  #modeControls() {
    const { view, pair } = this;
    const row = this.modeRow;
    const held = row.contains(document.activeElement) && row.dataset.mode === view.mode;
    if (held && view.mode !== "blink") return this.#modeValue();
    clear(row);
    row.dataset.mode = view.mode;
    row.hidden = !pair || view.mode === "lines" || view.mode === "points";
    if (row.hidden) return;
    if (WARPS.has(view.mode) && !this.viewer.together) {
      row.append(t("warp_none"));
      return;
    }
    if (view.mode === "blink") {
      const other = el("button", { type: "button", onclick: () => this.viewer.set({ second: !this.view.second }) },
        t(view.second ? "show_first" : "show_second"));
      row.append(other, motionReduced() ? t("blink_still") : t("blink_hint"));
      if (held) other.focus();
      return;
    }
    const range = { layers: [1, pair.layers?.stop ?? 1, 1], swipe: [0, 1, 0.01], fade: [0, 1, 0.01] }[view.mode];
    const name = { layers: "layer", swipe: "split", fade: "opacity" }[view.mode];
    this.modeInput = el("input", {
      type: "range", min: range[0], max: range[1], step: range[2], "aria-label": t(`mode_${view.mode}_slider`),
      oninput: (event) => this.viewer.set({ [name]: Number(event.target.value) }),
    });
    this.modeInput.value = view[name];
    this.modeOutput = el("span", { class: "n" });
    row.append(el("span", {}, t(`mode_${view.mode}_slider`)), this.modeInput, this.modeOutput);
    if (view.mode === "layers") {
      row.append(el("span", { class: "legend" }, ["kept", "now", "gone"].map((each) => el("span", {}, el("i", { class: each }), t(`legend_${each}`)))));
    }
    this.#modeValue();
  }

  #modeValue() {
    const { view, pair } = this;
    const name = { layers: "layer", swipe: "split", fade: "opacity" }[view.mode];
    if (!name || !this.modeInput?.isConnected) return;
    if (document.activeElement !== this.modeInput || Number(this.modeInput.value) !== view[name]) this.modeInput.value = view[name];
    this.modeOutput.textContent = view.mode === "layers"
      ? t("layer_text", { layer: view.layer, stop: pair.layers.stop, first: pair.keptAfter(view.layer, 0), second: pair.keptAfter(view.layer, 1) })
      : `${Math.round(view[name] * 100)} %`;
  }
}
