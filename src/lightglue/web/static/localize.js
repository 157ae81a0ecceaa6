// A photograph dropped onto a map: where it was taken, the points that say so, or why it is not known.

import { add, clear, el } from "./dom.js";
import { hasWord, t } from "./i18n.js";

/** page: the map page, which has `map`, `base`, `stage`, `lookThrough`, `list`. */
export function localizer(app, page) {
  return new Localizer(app, page);
}

class Localizer {
  constructor(app, page) {
    this.app = app;
    this.page = page;
    this.input = el("input", { type: "file", accept: "image/*", class: "unseen", id: "localize-file", onchange: () => this.take(this.input.files[0]) });
    this.drop = el("label", { class: "map-drop", for: "localize-file" }, el("strong", {}, t("localize_drop")), el("span", { class: "quiet" }, t("localize_how")));
    this.progress = el("p", { class: "map-progress", role: "status", hidden: true });
    this.stop = el("button", { type: "button", hidden: true, onclick: () => this.job?.cancel() }, t("localize_stop"));
    this.result = el("div", { class: "map-localized", "aria-live": "polite" });
    this.element = el("section", { class: "map-localize", "aria-label": t("localize_title") }, this.input, this.drop, this.progress, this.stop, this.result);
    for (const place of [this.element, page.stagePlace]) this.#accepts(place);
  }

  #accepts(place) {
    place.addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      place.classList.add("is-over");
    });
    place.addEventListener("dragleave", () => place.classList.remove("is-over"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      place.classList.remove("is-over");
      this.take(event.dataTransfer.files[0]);
    });
  }

  /** Another map: what was found goes. */
  reset() {
    this.job?.cancel();
    this.turn = null;
    clear(this.result);
    this.#busy(null);
    this.#forget();
  }

  #forget() {
    if (!this.page.stage?.map) return;
    this.page.stage?.cloud.setPicture("visitor", null);
    this.page.stage?.cloud.setVisitor(null);
    this.page.stage?.redraw();
  }

  #busy(text) {
    this.progress.hidden = this.stop.hidden = !text;
    this.progress.textContent = text ?? "";
    this.element.classList.toggle("is-busy", Boolean(text));
  }

  async take(file) {
    this.input.value = "";
    const { app, page } = this;
    if (!file || !page.map) return;
    this.job?.cancel();
    const turn = (this.turn = {}); // a later photograph takes the place of this one
    const { base } = page;
    clear(this.result);
    if (page.stage?.isThrough) page.stage.lookThrough(null);
    page.forgetPoint();
    this.#forget();
    this.#busy(t("localize_sending", { name: file.name }));
    try {
      const image = await app.api.upload(file);
      if (turn !== this.turn) return;
      this.#busy(t("localize_working", { name: file.name }));
      this.job = app.api.run(`${base}/localize`, { image: image.id }, {
        onProgress: (progress) => turn === this.turn && this.#busy(`${t("localize_working", { name: file.name })} ${said(progress)}`),
      });
      const found = await app.api.get(`results/${(await this.job).result}`);
      if (turn !== this.turn) return;
      const blob = await fetch(app.api.url(`images/${image.id}`)).then((answer) => answer.blob());
      if (turn === this.turn) await this.present(found, file.name, blob);
    } catch (error) {
      if (turn === this.turn) this.#failed(error.code === "cancelled" ? t("localize_stopped") : app.explain(error));
    } finally {
      if (turn === this.turn) {
        this.job = null;
        this.#busy(null);
      }
    }
  }

  #failed(text) {
    clear(this.result);
    add(this.result, el("p", { class: "fault" }, text));
  }

  async present(found, name, blob) {
    const { page } = this;
    clear(this.result);
    const tried = found.images.map((each) => this.#imageButton(each));
    if (!found.success) {
      add(this.result, el("h2", {}, t("localize_not", { name })), el("p", { class: "fault" }, found.failure),
        el("p", {}, t("localize_matched", { matches: `${found.num_matches}` })));
    } else {
      add(this.result, el("h2", {}, t("localize_found", { name })),
        el("p", {}, t("localize_numbers", {
          inliers: `${found.num_inliers}`, matches: `${found.num_matches}`, seconds: found.seconds.toFixed(1),
          centre: found.centre.map((value) => value.toFixed(2)).join(", "),
        })));
    }
    if (found.fault) add(this.result, el("p", { class: "quiet" }, found.fault));
    for (const remark of found.remarks) add(this.result, el("p", { class: "quiet" }, remark));
    const picture = await createImageBitmap(blob);
    add(this.result, this.#inliers(found, picture));
    if (found.success) {
      this.#show(found, picture);
      add(this.result, el("p", { class: "map-buttons" },
        el("button", { type: "button", class: "primary", disabled: !page.stage || !found.camera.plane, onclick: () => page.lookThrough("visitor") }, t("localize_through")),
        el("button", { type: "button", onclick: () => this.reset() }, t("localize_forget"))));
    }
    if (tried.length) add(this.result, el("p", { class: "quiet" }, t("localize_images"), " ", tried));
  }

  #imageButton(name) {
    const n = this.page.map.images.findIndex((each) => each.name === name);
    return el("button", { type: "button", class: "plain", disabled: n < 0, onclick: () => this.page.lookThrough(n) }, name);
  }

  #show(found, picture) {
    const { stage } = this.page;
    if (!stage) return;
    stage.cloud.setVisitor({ pose: found.cam_from_world, plane: found.camera.plane, rows: found.points });
    stage.cloud.setPicture("visitor", picture);
    stage.choosePoints(found.points);
    stage.reset();
    stage.canvas.dataset.visitor = String(found.num_inliers);
  }

  /** The photograph with its inliers; a click on one shows its point in the map. */
  #inliers(found, picture) {
    const canvas = el("canvas", { class: "map-inliers", role: "img", "aria-label": t("localize_picture", { count: `${found.num_inliers}` }) });
    const width = Math.min(640, picture.width);
    const share = width / found.size[0];
    Object.assign(canvas, { width, height: Math.round(found.size[1] * share) });
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const at = (i) => [(found.pixels[2 * i] + 0.5) * share, (found.pixels[2 * i + 1] + 0.5) * share];
    for (let i = 0; i < found.pixels.length / 2; i++) {
      context.beginPath();
      context.arc(...at(i), 3, 0, 2 * Math.PI);
      context.fillStyle = found.success ? "#19c37d" : "#d55e00";
      context.fill();
      context.strokeStyle = "#000";
      context.lineWidth = 1;
      context.stroke();
    }
    canvas.addEventListener("click", (event) => {
      const scale = canvas.width / canvas.clientWidth;
      let [best, least] = [-1, 12 * scale];
      for (let i = 0; i < found.pixels.length / 2; i++) {
        const away = Math.hypot(at(i)[0] - event.offsetX * scale, at(i)[1] - event.offsetY * scale);
        if (away < least) [best, least] = [i, away];
      }
      if (best >= 0 && found.points[best] >= 0) this.page.choosePoint(found.points[best]);
    });
    return canvas;
  }
}

/** How far it is, in words. */
function said({ stage }) {
  return hasWord(`stage_${stage}`) ? t(`stage_${stage}`) : "";
}
