// A folder: all pairs of its images, as a matrix of counts that is filled in while they are matched.

import { add, clear, el } from "./dom.js";
import { chosenFiles, droppedFiles, imagesAmong } from "./dropped.js";
import { addWords, t, translate } from "./i18n.js";
import { bind } from "./keys.js";
import { Matrix, shown } from "./matrix.js";
import { words } from "./many_words.js";
import { OptionsForm } from "./options_form.js";
import { WeightsOffer } from "./weights_offer.js";

addWords(words);

const AT_ONCE = 3; // uploads
const ROWS = 100; // of the table of pairs, to begin with
const USUAL_MOST = 200; // images, where the service does not say

export function mount(root, app) {
  const page = new ManyPage(root, app);
  return { show: (params) => page.arrive(params) };
}

class ManyPage {
  constructor(root, app) {
    this.app = app;
    this.place = el("div", { class: "many" });
    add(root, this.place);
    this.options = new OptionsForm(["mask0", "mask1"], "many", ["features", "effort", "max_keypoints", "geometry"]);
    const features = () => this.options.rows.get("features")?.control.value;
    this.offer = new WeightsOffer(app, features);
    this.options.front.addEventListener("change", () => this.offer.show());
    app.options().then((options) => {
      this.options.build(options.match);
      this.offer.learn(options);
    }, () => {}); // the pair page says what is wrong
    this.more = el("details", { class: "more card" }, el("summary", { text: "more_options" }), this.options.element);
    translate(this.more);
    this.build();
    bind(["Escape"], "Esc", "many_stop", () => this.cancel(), () => Boolean(this.isBusy && this.place.offsetParent));
    for (const [where, event] of [[document, "themechange"], [matchMedia("(prefers-color-scheme: dark)"), "change"]]) {
      where.addEventListener(event, () => this.matrix?.redraw());
    }
    document.addEventListener("languagechange", () => {
      this.build();
      if (this.set) this.present();
    });
  }

  async arrive(params) {
    const id = params.get("set");
    if (!id || id === this.set?.id || this.isBusy) return;
    try {
      this.take(await this.app.api.get(`pairs/${id}`));
    } catch (error) {
      this.app.notify(this.app.explain(error));
    }
  }

  build() {
    clear(this.place);
    this.folder = el("input", { type: "file", webkitdirectory: true, multiple: true, class: "unseen", id: "many-folder", onchange: () => this.choose(chosenFiles(this.folder.files)) });
    this.files = el("input", { type: "file", multiple: true, accept: "image/*", class: "unseen", id: "many-files", onchange: () => this.choose(chosenFiles(this.files.files)) });
    this.drop = el("div", { class: "many-drop" },
      el("strong", {}, t("many_drop")),
      el("span", { class: "many-choices" },
        this.folder, el("label", { for: "many-folder", class: "button" }, t("many_folder")),
        this.files, el("label", { for: "many-files", class: "button" }, t("many_files"))),
      el("span", { class: "quiet" }, t("many_how", { most: `${this.most}` })));
    this.form = el("form", { class: "many-form", onsubmit: (event) => event.preventDefault() }, this.options.front, this.more);
    this.chosen = el("p", { class: "many-chosen", role: "status" });
    this.start = el("button", { type: "button", class: "primary", disabled: true, onclick: () => this.run() }, t("many_start"));
    this.stop = el("button", { type: "button", hidden: true, onclick: () => this.cancel() }, t("many_stop"));
    this.bar = el("progress", { max: "1", value: "0", hidden: true, "aria-label": t("many_progress") });
    this.status = el("p", { class: "many-status", role: "status" });
    this.leftOut = el("div", { class: "many-left-out" });
    this.result = el("div", { class: "many-result", hidden: true });
    add(this.place, this.drop, this.form, this.offer.element, this.chosen, el("p", { class: "many-buttons" }, this.start, this.stop, this.bar), this.status, this.leftOut, this.result);
    this.offer.show();
    this.accept(this.place);
    if (this.images) this.tellChosen();
    this.busy(this.isBusy);
  }

  get most() {
    return this.app.health?.limits?.batch ?? USUAL_MOST;
  }

  accept(place) {
    place.ondragover = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      this.drop.classList.add("is-over");
    };
    place.ondragleave = () => this.drop.classList.remove("is-over");
    place.ondrop = async (event) => {
      event.preventDefault();
      this.drop.classList.remove("is-over");
      this.choose(await droppedFiles(event.dataTransfer));
    };
  }

  // --- what was dropped ---------------------------------------------------------------------------------------------

  choose(files) {
    if (this.isBusy) return;
    const found = imagesAmong(files);
    this.folderName = found.folder;
    this.skipped = found.images.slice(this.most).map((each) => ({ name: each.name, reason: t("many_too_many", { most: `${this.most}` }) }));
    this.images = found.images.slice(0, this.most);
    this.others = found.others;
    this.folder.value = this.files.value = "";
    this.tellChosen();
    this.tellLeftOut();
    this.result.hidden = true;
    if (!this.start.disabled) this.start.focus();
  }

  tellChosen() {
    const count = this.images.length;
    const size = this.images.reduce((sum, each) => sum + each.file.size, 0);
    const numbers = { count: `${count}`, pairs: ((count * (count - 1)) / 2).toLocaleString(), size: (size / 1e6).toFixed(1) };
    const texts = [count < 2 ? t("many_few", numbers) : t("many_chosen", numbers)];
    if (this.others) texts.push(t("many_others", { count: `${this.others}` }));
    const room = this.app.health?.limits?.images_bytes;
    const isTooMuch = Boolean(room && size > room);
    if (isTooMuch) texts.push(t("many_too_large", { room: (room / 1e6).toFixed(0) }));
    this.chosen.textContent = texts.join(" ");
    this.start.disabled = count < 2 || isTooMuch;
  }

  tellLeftOut() {
    clear(this.leftOut);
    if (!this.skipped?.length) return;
    add(this.leftOut, el("details", { open: this.skipped.length <= 5 },
      el("summary", {}, t("many_left_out", { count: `${this.skipped.length}` })),
      el("ul", {}, this.skipped.map((each) => el("li", {}, el("strong", {}, each.name), ` ${each.reason}`)))));
  }

  // --- work ---------------------------------------------------------------------------------------------------------

  busy(isBusy, text = this.status.textContent) {
    this.isBusy = isBusy;
    this.start.hidden = Boolean(isBusy);
    this.stop.hidden = this.bar.hidden = !isBusy;
    this.status.textContent = text;
    for (const input of [this.folder, this.files, ...this.form.elements]) input.disabled = Boolean(isBusy);
  }

  async run() {
    const { app } = this;
    app.notify("");
    this.options.fault(null, "");
    this.stopped = this.stop.disabled = false;
    this.busy(true, "");
    try {
      const sent = await this.send();
      if (this.stopped) return this.busy(false, t("many_stopped_sending"));
      if (sent.length < 2) return this.busy(false, t("many_few", { count: `${sent.length}` }));
      const job = await app.api.post("pairs", { images: sent.map((each) => each.id), names: sent.map((each) => each.name), options: this.options.values() });
      const set = await app.api.get(`pairs/${job.set}`);
      return this.take(set);
    } catch (error) {
      this.busy(false, "");
      if (this.offer.refused(error)) return undefined;
      if (!this.options.has(error.field)) return app.notify(app.explain(error));
      this.more.open ||= this.more.contains(this.options.rows.get(error.field).control);
      return this.options.fault(error.field, app.explain(error));
    }
  }

  /** Send the images, a few at once, in their order; those that are refused are left out with the reason. */
  async send() {
    const { images } = this;
    const sent = [];
    let [next, done] = [0, 0];
    const work = async () => {
      while (next < images.length && !this.stopped) {
        const at = next++;
        const { file, name } = images[at];
        try {
          sent[at] = { ...(await this.patiently(() => this.app.api.upload(file))), name };
        } catch (error) {
          if (!error.status || error.status >= 500 || error.status === 401) throw error;
          this.skipped.push({ name, reason: withoutName(this.app.explain(error), file.name) });
          this.tellLeftOut();
        }
        done += 1;
        this.progress(done / images.length, t("many_sending", { done: `${done}`, total: `${images.length}` }));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return sent.filter(Boolean);
  }

  /** Again a little later where the service has too much to do. */
  async patiently(send) {
    for (let tries = 0; ; tries++) {
      try {
        return await send();
      } catch (error) {
        if (error.status !== 429 || tries > 20 || this.stopped) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(5, error.retryAfter ?? 1)));
      }
    }
  }

  progress(share, text) {
    this.bar.value = share;
    this.status.textContent = text;
  }

  cancel() {
    this.stopped = true;
    this.stop.disabled = true;
    this.following?.cancel();
  }

  /** A set as the service describes it: shown, and followed where it is still worked on. */
  async take(set) {
    const { app } = this;
    this.set = set;
    this.pairs = new Map(set.pairs.map((each) => [`${each.i} ${each.j}`, each]));
    this.begin = { time: performance.now(), done: this.pairs.size };
    app.state.write("folder", { set: set.id });
    this.present();
    this.busy(true, "");
    this.stop.disabled = false;
    if (this.pairs.size === set.total) return this.finish(t("many_done", this.counts()));
    this.following = app.api.job(set.job, { onPair: (found) => this.hear(found), onProgress: () => {} });
    try {
      await this.following;
      await this.refresh();
      this.finish(t("many_done", this.counts()));
    } catch (error) {
      await this.refresh();
      const isStopped = error.code === "cancelled" || error.status === 404; // a job that ended long ago is forgotten
      const isSaid = isStopped || this.offer.refused(error);
      this.finish(isSaid ? t("many_stopped", this.counts()) : app.explain(error), !isSaid);
    }
    return undefined;
  }

  /** What came while nobody listened, such as images that are left out. */
  async refresh() {
    const { set } = this;
    try {
      const found = await this.app.api.get(`pairs/${set.id}`);
      if (set !== this.set) return;
      this.set = found;
      for (const each of found.pairs) this.hear(each);
    } catch {
      // It has expired; what is shown stays.
    }
  }

  finish(text, isBad = false) {
    this.following = null;
    this.busy(false, text);
    this.app.announce(text);
    if (isBad) this.app.notify(text);
    const known = new Set(this.skipped?.map((each) => each.name));
    this.skipped ??= [];
    for (const image of this.set.images) {
      const reason = image.error ?? image.warning;
      if (reason && !known.has(image.name)) this.skipped.push({ name: image.name, reason: withoutName(reason, image.name) });
    }
    this.tellLeftOut();
    this.table();
  }

  counts() {
    const all = [...this.pairs.values()];
    return { done: all.length.toLocaleString(), total: this.set.total.toLocaleString(), found: all.filter((each) => shown(each) > 0).length.toLocaleString() };
  }

  hear(found) {
    this.pairs.set(`${found.i} ${found.j}`, found);
    this.matrix?.set(found.i, found.j, found);
    if (this.download) this.download.hidden = this.set.apart;
    const [done, total] = [this.pairs.size, this.set.total];
    const { time, done: before } = this.begin;
    const seconds = ((performance.now() - time) / 1000 / Math.max(1, done - before)) * (total - done);
    const left = done - before < 3 || !seconds ? "" : `, ${t("many_left", { time: duration(seconds) })}`;
    this.progress(done / total, t("many_matching", { done: done.toLocaleString(), total: total.toLocaleString() }) + left);
    this.canvas?.setAttribute("data-done", String(done));
    this.tableSoon();
  }

  // --- what came of it ----------------------------------------------------------------------------------------------

  present() {
    const { set, app } = this;
    clear(this.result);
    this.result.hidden = false;
    this.drop.classList.add("is-small");
    this.canvas = el("canvas", { class: "many-matrix", tabindex: "0", role: "application", "aria-label": t("many_matrix", { count: `${set.images.length}` }), "data-set": set.id });
    this.about = el("p", { class: "many-about", role: "status" }, t("many_click"));
    this.download = el("a", { class: "button", hidden: !this.pairs.size || set.apart, href: app.api.url(`pairs/${set.id}/colmap`), download: "database.db" }, t("many_colmap"));
    this.tablePlace = el("div", { class: "card many-table" });
    add(this.result, el("div", { class: "many-main" },
      el("div", { class: "card many-left" }, el("div", { class: "many-room" }, this.canvas), this.about, el("p", {}, this.download)),
      this.tablePlace));
    this.matrix = new Matrix(this.canvas, { choose: (cell) => this.tell(cell), enter: (i, j) => this.open(i, j) });
    const images = set.images.map((image) => ({ name: image.name, picture: null }));
    this.matrix.show(images);
    for (const each of this.pairs.values()) this.matrix.set(each.i, each.j, each);
    this.rows = ROWS;
    this.table();
    this.loadPictures(images, set);
  }

  async loadPictures(images, set) {
    let next = 0;
    const work = async () => {
      while (next < images.length && set.id === this.set.id) {
        const at = next++;
        try {
          const answer = await fetch(this.app.api.url(`images/${set.images[at].id}/thumbnail`));
          if (answer.ok) images[at].picture = await createImageBitmap(await answer.blob());
          this.matrix.redraw();
        } catch {
          // Its number stands there instead.
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  }

  names(i, j) {
    return { a: this.set.images[i].name, b: this.set.images[j].name };
  }

  /** What a cell says, for eyes and for screen readers. */
  tell(cell) {
    if (!cell) {
      this.about.textContent = t("many_click");
      return;
    }
    const found = this.pairs.get(cell.join(" "));
    this.about.textContent = `${t("many_pair", this.names(...cell))} ${this.words(found)}`;
  }

  words(found) {
    if (!found) return t("many_not_yet");
    if (found.error) return found.error;
    const texts = [t("many_matches", { matches: `${found.matches}` })];
    if (found.inliers !== null && found.inliers !== undefined) texts.push(t("many_inliers", { inliers: `${found.inliers}` }));
    if (found.overlap !== null && found.overlap !== undefined) texts.push(t("many_overlap", { overlap: found.overlap.toFixed(2) }));
    return texts.join(", ");
  }

  tableSoon() {
    this.drawing ??= setTimeout(() => {
      this.drawing = null;
      this.table();
    }, 1000);
  }

  /** The pairs that match best, for screen readers and for whoever looks for a name. */
  table() {
    if (!this.tablePlace) return;
    const focused = document.activeElement?.dataset?.pair;
    const all = [...this.pairs.values()].sort((a, b) => shown(b) - shown(a) || a.i - b.i || a.j - b.j);
    const rows = all.slice(0, this.rows).map((found) => el("tr", {},
      el("th", { scope: "row" }, el("button", { type: "button", class: "plain", "data-pair": `${found.i} ${found.j}`, disabled: Boolean(found.error), onclick: () => this.open(found.i, found.j) }, t("many_pair", this.names(found.i, found.j)))),
      el("td", {}, found.error ? el("span", { title: found.error }, "!") : `${found.matches}`),
      el("td", {}, `${found.inliers ?? "–"}`),
      el("td", {}, found.overlap === null || found.overlap === undefined ? "–" : found.overlap.toFixed(2))));
    clear(this.tablePlace);
    add(this.tablePlace, el("table", {},
      el("caption", {}, t("many_table")),
      el("thead", {}, el("tr", {}, ["many_images", "many_matches_head", "many_inliers_head", "many_overlap_head"].map((key) => el("th", { scope: "col" }, t(key))))),
      el("tbody", {}, rows)));
    if (all.length > this.rows) {
      add(this.tablePlace, el("button", { type: "button", onclick: () => { this.rows *= 4; this.table(); } }, t("many_more", { count: `${all.length - this.rows}` })));
    }
    if (focused) this.tablePlace.querySelector(`[data-pair="${focused}"]`)?.focus();
  }

  /** Go to the page of a pair. */
  async open(i, j) {
    if (this.opening) return;
    this.opening = true;
    const names = this.names(i, j);
    this.about.textContent = `${t("many_pair", names)} ${t("many_opening")}`;
    try {
      const job = await this.patiently(() => this.app.api.post(`pairs/${this.set.id}/${i}/${j}`));
      const done = await this.app.api.job(job.id);
      this.app.state.go("pair", { r: done.result });
    } catch (error) {
      this.app.notify(this.app.explain(error));
    } finally {
      this.opening = false;
      this.tell([i, j]);
    }
  }
}

/** What is said of a file, behind its name. */
function withoutName(reason, name) {
  return reason.startsWith(name) ? reason.slice(name.length).replace(/^:? /, "") : reason;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
