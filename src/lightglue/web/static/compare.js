/* The same two images matched with other settings, beside the first: what both found, and what only one did. */

import { clear, el, icon } from "./dom.js";
import { hasWord, number, t } from "./i18n.js";
import { Pair, shared } from "./pair.js";
import { Viewer } from "./viewer.js";

const SYNCED = ["threshold", "mode", "filter", "linked", "layout", "swapped", "split", "opacity", "second", "layer"];

export class Comparison {
  /**
   * @param bench the Workbench beside which it appears; run(options) -> Promise of a pair's JSON or null;
   *   changed() when another pair is compared; failed(error)
   */
  constructor(bench, app, run, changed, failed) {
    this.bench = bench;
    this.app = app;
    this.run = run;
    this.changed = changed;
    this.failed = failed;
    this.id = null;
    this.pair = null;
    this.different = true; // only what one found is coloured
    this.title = el("strong", {});
    this.counts = el("div", { class: "result", role: "status" });
    this.place = el("div");
    this.showAll = el("button", { type: "button", text: "compare_all", onclick: () => this.#differ(false) });
    this.showOnly = el("button", { type: "button", text: "compare_only", onclick: () => this.#differ(true) });
    this.card = el("div", { class: "card compared", hidden: true },
      this.bar = el("div", { class: "bar" }, this.title,
        el("span", { class: "segments", role: "group", "label-text": "compare" }, this.showOnly, this.showAll),
        el("span", { class: "tools" }, el("button", { type: "button", class: "plain", "label-text": "close", onclick: () => this.close() }, icon("close")))),
      this.place, this.counts);
    this.bench.stageCard.after(this.card);
    new ResizeObserver(() => { // pictures that stand side by side begin at the same height
      const beside = this.card.offsetTop === this.bench.stageCard.offsetTop;
      this.bar.style.minHeight = beside ? `${this.bench.bar.offsetHeight}px` : "";
    }).observe(this.bench.bar);
    this.first = el("span", { class: "legend" });
    this.bench.viewer.addEventListener("view", ({ detail }) => this.#sync(detail));
    this.bench.viewer.addEventListener("camera", () => this.viewer && !this.moving && this.#follow(this.bench.viewer, this.viewer));
    document.addEventListener("languagechange", () => this.pair && this.#said());
  }

  setOptions(options) {
    this.options = options;
  }

  /** Ask with which settings. */
  ask() {
    const used = this.bench.pair.json;
    const choice = (name, values, usual) => {
      const select = el("select", { id: `compare-${name}` }, values.map((value) => el("option", { value }, hasWord(`${name}_${value}`) ? t(`${name}_${value}`) : value)));
      select.value = usual;
      return [select, el("div", { class: "field" }, el("label", { for: select.id }, t(name)), select)];
    };
    const [features, featuresField] = choice("features", this.options?.features.map(({ name }) => name) ?? [used.features], used.features);
    const [effort, effortField] = choice("effort", this.options?.efforts ?? ["normal"], used.effort === "fast" ? "normal" : "fast");
    const [precision, precisionField] = choice("precision", ["usual", "float32", "reduced"], "usual");
    const [matcher, matcherField] = choice("matcher", this.options?.match.find((each) => each.name === "matcher")?.choices ?? ["lightglue"], used.matcher ?? "lightglue");
    const keypoints = el("input", { type: "number", id: "compare-keypoints", min: 1, max: 8192, placeholder: t("as_usual") });
    const fault = el("p", { class: "fault", role: "alert" });
    const dialog = el("dialog", { "aria-labelledby": "compare-title" },
      el("h2", { id: "compare-title" }, t("compare_title")), el("p", { class: "quiet" }, t("compare_text")),
      el("div", { class: "fields" }, featuresField, effortField, precisionField, matcherField,
        el("div", { class: "field" }, el("label", { for: keypoints.id }, t("option_max_keypoints")), keypoints)), fault,
      el("p", { class: "row" },
        el("button", { type: "button", class: "primary", onclick: async () => {
          const options = { features: features.value, effort: effort.value, matcher: matcher.value };
          if (precision.value !== "usual") options.mp = precision.value === "reduced";
          if (keypoints.value) options.max_keypoints = Number(keypoints.value);
          dialog.close();
          try {
            const json = await this.run(options);
            if (json) this.show(json);
          } catch (error) {
            this.failed(error);
          }
        } }, t("compare_run")),
        el("button", { type: "button", onclick: () => dialog.close() }, t("cancel"))));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  async showResult(id) {
    try {
      this.show(await this.app.api.get(`results/${encodeURIComponent(id)}`));
    } catch (error) {
      this.app.notify(error.status === 410 || error.status === 404 ? t("result_gone") : this.app.explain(error));
    }
  }

  show(json) {
    this.card.hidden = false;
    this.bench.stage.classList.add("comparing");
    if (!this.viewer) {
      this.viewer = new Viewer(this.place);
      this.viewer.addEventListener("camera", () => !this.moving && this.#follow(this.viewer, this.bench.viewer));
      this.viewer.addEventListener("hover", ({ detail }) => this.viewer.say(detail && detail.match !== null
        ? [t("tip_match", { k: detail.match + 1, score: number(this.pair.scores[detail.match], 3) })] : null));
    }
    this.pair = new Pair(json);
    this.id = json.id;
    this.viewer.setPair(this.pair);
    this.viewer.setImages(this.pair.images, this.bench.viewer.pictures);
    this.#sync(this.bench.view);
    this.bench.viewer.layout();
    this.#said();
    this.changed();
    this.card.scrollIntoView({ block: "nearest" });
    this.app.announce(this.counts.textContent);
  }

  close() {
    if (!this.pair) return;
    this.pair = null;
    this.id = null;
    this.card.hidden = true;
    this.bench.stage.classList.remove("comparing");
    this.first.remove();
    this.bench.viewer.set({ only: null }, true);
    this.bench.viewer.layout();
    this.changed();
  }

  #differ(different) {
    this.different = different;
    this.#said();
  }

  #sync(changes) {
    if (!this.pair) return;
    const { homography } = this.bench.pair ?? {}; // of the same images
    if (homography && !this.pair.homography) {
      this.pair.json.warp = { matrix: [homography] };
      this.viewer.layout();
    }
    const found = Object.fromEntries(SYNCED.filter((name) => name in changes).map((name) => [name, this.bench.view[name]]));
    if (!Object.keys(found).length) return;
    this.viewer.set(found, true);
    if ("threshold" in found) this.#said();
  }

  #follow(from, to) {
    this.moving = true;
    to.camera = from.camera;
    this.moving = false;
  }

  #said() {
    const viewers = [this.bench.viewer, this.viewer];
    const pairs = [this.bench.pair, this.pair];
    if (!pairs[0]) return;
    const counts = viewers.map((viewer) => viewer.count);
    const alike = [shared(pairs[0], pairs[1], counts[0], counts[1]), shared(pairs[1], pairs[0], counts[1], counts[0])];
    const only = alike.map((each, i) => {
      let found = 0;
      for (let k = 0; k < counts[i]; k++) found += !each[k];
      return found;
    });
    viewers.forEach((viewer, i) => viewer.set({ only: this.different ? alike[i] : null }, true));
    this.showOnly.setAttribute("aria-pressed", String(this.different));
    this.showAll.setAttribute("aria-pressed", String(!this.different));
    const name = ({ json }) => [json.features, json.matcher === "nearest" ? json.matcher : null, json.effort, json.precision].filter(Boolean).join(", ");
    this.title.textContent = name(pairs[1]);
    this.first.textContent = t("compare_only_first", { count: only[0], name: name(pairs[0]) });
    this.bench.resultLine.append(" ", this.first);
    clear(this.counts).append(el("strong", {}, t(counts[1] === 1 ? "one_match" : "matches_found", { count: counts[1] })),
      " ", el("span", {}, t("compare_both", { count: counts[1] - only[1] })), " ", el("span", {}, t("compare_only_here", { count: only[1] })),
      " ", el("span", {}, t("seconds", { seconds: number(Object.values(pairs[1].json.seconds ?? {}).reduce((sum, each) => sum + each, 0), 2) })));
  }
}
