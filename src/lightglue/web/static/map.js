// Maps: points, cameras and pictures in 3D; a camera to look through, a point and its images, a photograph to localize.

import { add, clear, el } from "./dom.js";
import { addWords, t } from "./i18n.js";
import { cameraTable, patches } from "./map_lists.js";
import { bind } from "./keys.js";
import { localizer } from "./localize.js";
import { words } from "./map_words.js";
import { Stage } from "./stage.js";

addWords(words);

const THUMBNAILS = 200; // images; of more, only those that are looked at are shown
const AT_ONCE = 4;

export function mount(root, app) {
  const page = new MapPage(root, app);
  return { show: (params) => page.arrive(params), hide: () => page.leave() };
}

class MapPage {
  constructor(root, app) {
    this.app = app;
    this.place = el("div", { class: "maps" });
    add(root, this.place);
    document.addEventListener("languagechange", () => this.maps && this.build());
    document.addEventListener("themechange", () => this.paint());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    const isHere = () => Boolean(this.isShown && this.map && this.stage);
    for (const [key, text] of [["n", "map_next"], ["p", "map_previous"], ["j", "map_walk"], ["k", "map_walk_back"]]) {
      bind([key], key.toUpperCase(), text, (event) => this.key(event), isHere);
    }
    bind(["Escape"], "Esc", "map_leave", (event) => this.key(event), isHere);
  }

  async arrive(params) {
    this.params = params;
    this.isShown = true;
    if (!this.maps) {
      try {
        this.maps = (await this.app.api.get("maps")).maps;
      } catch (error) {
        this.app.notify(this.app.explain(error));
        return;
      }
      this.build();
    } else this.open(params.get("map") ?? this.map?.name);
  }

  leave() {
    this.isShown = false;
    this.stopLoading();
  }

  /** All of the page, again where the language has changed. */
  build() {
    const { place } = this;
    clear(place);
    this.stage?.dispose();
    const known = this.map;
    this.map = this.stage = null;
    if (!this.maps.length) {
      add(place, el("div", { class: "map-none" }, el("h2", {}, t("map_none")), el("p", {}, t("map_none_how")),
        el("pre", {}, el("code", {}, "lightglue sfm photos -o map\nlightglue web --maps map"))));
      return;
    }
    this.makeBar();
    this.makeMain();
    const first = this.maps.find((each) => !each.fault) ?? this.maps[0];
    this.open(known?.name ?? this.params.get("map") ?? first.name);
  }

  makeBar() {
    this.select = el("select", { "aria-label": t("map_which"), onchange: () => this.open(this.select.value) },
      this.maps.map((each) => el("option", { value: each.name }, each.fault ? t("map_faulty", { name: each.name }) : each.name)));
    this.statistics = el("p", { class: "map-statistics" });
    this.report = el("a", { class: "map-report", target: "_blank", rel: "noopener" }, t("map_report"));
    add(this.place, el("div", { class: "map-bar" }, el("label", {}, el("span", {}, t("map_map")), this.select), this.statistics, this.report));
  }

  makeMain() {
    this.canvas = el("canvas", { class: "map-canvas", tabindex: "0", role: "application", "aria-label": t("map_canvas"), "aria-describedby": "map-keys" });
    this.tip = el("p", { class: "map-tip", hidden: true });
    this.fault = el("p", { class: "map-fault", hidden: true, role: "alert" });
    this.stagePlace = el("div", { class: "map-stage" }, this.canvas, this.tip, this.fault, this.makeThrough(), this.makeTools());
    this.details = el("section", { class: "map-details", "aria-live": "polite" });
    this.table = el("section", { class: "map-cameras" });
    this.leftOut = el("section", { class: "map-left-out" });
    this.localize = localizer(this.app, this);
    add(this.place, el("div", { class: "map-main" }, this.stagePlace,
      el("aside", { class: "map-side" }, this.localize.element, this.details, this.table, this.leftOut)),
    el("p", { class: "quiet map-keys", id: "map-keys" }, t("map_keys")));
    try {
      this.stage = new Stage(this.canvas, {
        pick: (found) => this.pick(found),
        hover: (found, x, y) => this.hover(found, x, y),
        change: () => this.changed(),
        key: (event) => this.key(event),
      });
      this.canvas.stage = this.stage; // for whoever looks into the page from outside
    } catch {
      this.stage = null;
      this.canvas.hidden = true;
      this.tell(t("map_no_webgl"));
    }
    this.paint();
  }

  /** What stands above the picture while one looks through a camera. */
  makeThrough() {
    this.throughName = el("strong", {});
    this.opacity = el("input", { type: "range", min: "0", max: "1", step: "0.05", value: "0.85", oninput: () => this.stage.mark({ opacity: Number(this.opacity.value) }) });
    this.through = el("div", { class: "map-through", hidden: true },
      el("button", { type: "button", onclick: () => this.step(-1), "aria-label": t("map_previous") }, "‹"),
      this.throughName,
      el("button", { type: "button", onclick: () => this.step(1), "aria-label": t("map_next") }, "›"),
      el("label", {}, el("span", {}, t("map_picture")), this.opacity),
      el("button", { type: "button", onclick: () => this.leaveCamera() }, t("map_leave")));
    return this.through;
  }

  makeTools() {
    const range = (key, attributes, change) => {
      const input = el("input", { type: "range", ...attributes, oninput: () => change(Number(input.value)) });
      return [input, el("label", {}, el("span", {}, t(key)), input)];
    };
    const size = range("map_point_size", { min: "1", max: "8", step: "0.5", value: "2.5" }, (value) => this.set({ pointSize: value }));
    this.least = range("map_least", { min: "2", max: "10", step: "1", value: "2" }, (value) => this.set({ leastImages: value }));
    const cameras = range("map_camera_size", { min: "0.1", max: "4", step: "0.1", value: "1" }, (value) => {
      this.stage?.cloud.setCameraScale(value);
      this.stage?.redraw();
    });
    this.tools = el("details", { class: "map-tools" }, el("summary", {}, t("map_view")), size[1], this.least[1], cameras[1],
      el("button", { type: "button", onclick: () => this.stage?.reset() }, t("map_reset")));
    return this.tools;
  }

  set(settings) {
    if (!this.stage) return;
    Object.assign(this.stage.cloud.settings, settings);
    this.stage.redraw();
  }

  /** The page's own colours, which follow its theme. */
  paint() {
    if (!this.stage) return;
    const style = getComputedStyle(this.canvas);
    this.set({ accent: rgb(style.getPropertyValue("outline-color")), dark: rgb(style.color)[0] > 0.5 });
  }

  tell(text) {
    this.fault.textContent = text ?? "";
    this.fault.hidden = !text;
  }

  async open(name) {
    if (!name || this.map?.name === name) return this.restore();
    this.stopLoading();
    this.select.value = name;
    const { api } = this.app;
    const place = `maps/${encodeURIComponent(name)}`;
    const opening = (this.opening = {});
    this.tell(t("map_loading", { name }));
    try {
      const map = await api.get(place);
      const answer = await fetch(api.url(`${place}/points?version=${map.version}`));
      if (!answer.ok) throw new api.ApiError(answer.status, await answer.json().catch(() => null));
      const content = await answer.arrayBuffer();
      if (opening !== this.opening) return undefined;
      this.map = map;
      this.base = place;
      this.tell(null);
      this.present(content);
    } catch (error) {
      if (opening !== this.opening) return undefined;
      this.empty(this.app.explain(error));
    }
    return undefined;
  }

  /** No map, for a reason. */
  empty(reason) {
    this.map = this.list = null;
    this.stage?.clear();
    this.localize.reset();
    this.tell(reason);
    for (const part of [this.statistics, this.table, this.details, this.leftOut]) clear(part);
    this.report.hidden = this.through.hidden = true;
    this.stagePlace.classList.remove("is-through");
    delete this.canvas.dataset.map;
  }

  present(content) {
    const { map } = this;
    const { statistics: s } = map;
    const numbers = { images: `${s.images}`, all: `${s.images_in_all}`, points: s.points.toLocaleString(), track: fixed(s.mean_track_length, 1), error: fixed(s.mean_error, 2) };
    this.statistics.textContent = t("map_statistics", numbers) + (s.other_models ? ` ${t("map_other_models", { count: `${s.other_models}` })}` : "");
    this.report.hidden = !map.has_report;
    this.report.href = this.app.api.url(`${this.base}/report`);
    const missing = map.images.filter((image) => !image.has_file).length;
    if (missing) this.app.announce(t("map_missing", { count: `${missing}` }));
    clear(this.details);
    add(this.details, el("p", { class: "quiet" }, missing ? t("map_missing", { count: `${missing}` }) : t("map_click")));
    const list = cameraTable(map, { enter: (n) => this.lookThrough(n), focus: (n) => this.stage?.mark({ hovered: n }) });
    this.list = list;
    clear(this.table);
    add(this.table, list.element);
    clear(this.leftOut);
    if (map.left_out.length) {
      add(this.leftOut, el("details", {}, el("summary", {}, t("map_left_out", { count: `${map.left_out.length}` })),
        el("ul", {}, map.left_out.map((each) => el("li", {}, el("strong", {}, each.name), ` ${each.reason}`)))));
    }
    this.localize.reset();
    if (this.stage) {
      this.stage.show(map, content);
      const longest = longestTrack(content);
      this.least[0].max = String(Math.max(2, Math.min(20, longest)));
      this.least[0].value = "2";
      this.set({ leastImages: 0 });
      this.loadThumbnails();
    }
    this.canvas.dataset.map = map.name; // for whoever waits until it is there
    this.restore();
  }

  /** What the address asks for: a camera to look through, or a point. */
  restore() {
    const image = this.map?.images.findIndex((each) => each.name === this.params.get("camera")) ?? -1;
    if (image >= 0 && this.stage?.marks.through !== image) this.lookThrough(image);
  }

  // --- pictures ---------------------------------------------------------------------------------------------------

  stopLoading() {
    this.loading?.abort();
    this.loading = null;
  }

  async picture(path, signal) {
    const answer = await fetch(this.app.api.url(path), { signal });
    if (!answer.ok) throw new this.app.api.ApiError(answer.status, await answer.json().catch(() => null));
    return createImageBitmap(await answer.blob());
  }

  imagePath(n, size = "") {
    return `${this.base}/images/${n}${size}?version=${this.map.version}`;
  }

  async loadThumbnails() {
    this.stopLoading();
    const { map } = this;
    if (map.images.length > THUMBNAILS) return;
    const loading = (this.loading = new AbortController());
    const rest = map.images.map((image, n) => n).filter((n) => map.images[n].has_file);
    const work = async () => {
      while (rest.length && !loading.signal.aborted) {
        const n = rest.shift();
        try {
          const picture = await this.picture(this.imagePath(n, "/thumbnail"), loading.signal);
          if (loading.signal.aborted) return;
          if (!this.full?.has(n)) this.stage.cloud.setPicture(n, picture);
          this.stage.redraw();
        } catch {
          // An image that is gone is told where one looks through it.
        }
      }
    };
    this.full = new Set();
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  }

  async loadPicture(n) {
    this.full ??= new Set();
    if (this.full.has(n) || !this.map.images[n].has_file) return;
    this.full.add(n);
    const { map } = this;
    try {
      const picture = await this.picture(this.imagePath(n));
      if (map !== this.map) return;
      this.stage.cloud.setPicture(n, picture);
      this.stage.redraw();
    } catch (error) {
      this.full.delete(n);
      if (map === this.map) add(this.details, el("p", { class: "fault" }, this.app.explain(error)));
    }
  }

  // --- what is looked at --------------------------------------------------------------------------------------------

  hover(found, x, y) {
    const name = found?.visitor ? t("map_photograph") : found?.image !== undefined ? this.map.images[found.image].name : null;
    this.tip.hidden = !name;
    if (!name) return;
    this.tip.textContent = name;
    this.tip.style.setProperty("left", `${Math.min(x + 12, this.canvas.clientWidth - 160)}px`);
    this.tip.style.setProperty("top", `${y + 12}px`);
  }

  pick(found) {
    if (found?.visitor) this.lookThrough("visitor");
    else if (found?.image !== undefined) this.lookThrough(found.image);
    else if (found?.point !== undefined) this.choosePoint(found.point);
    else this.forgetPoint();
  }

  forgetPoint() {
    this.stage?.choosePoints([]);
    this.stage?.mark({ seeing: [], image: null });
    this.list?.choose(null);
    this.walked = null;
    clear(this.details);
  }

  /** Look through a camera: its picture behind the points. */
  async lookThrough(n) {
    this.list?.choose(n === "visitor" ? null : n);
    if (!this.stage) return n === "visitor" ? undefined : this.describe(n);
    this.canvas.scrollIntoView({ block: "nearest" });
    this.stage.mark({ image: n, seeing: [] });
    this.stage.choosePoints(n === "visitor" ? this.stage.cloud.visitor.rows : []);
    this.stage.lookThrough(n);
    this.walked = null;
    if (n === "visitor") return undefined;
    this.describe(n);
    await Promise.all([this.loadPicture(n), this.chooseSeen(n)]);
    return undefined;
  }

  /** The points that an image sees, while one looks through it. */
  async chooseSeen(n) {
    const { map } = this;
    const found = await this.seen(n);
    if (found && map === this.map && this.stage.marks.through === n) this.stage.choosePoints(found.points);
  }

  async seen(n) {
    try {
      return await this.app.api.get(`${this.base}/images/${n}/points?version=${this.map.version}`);
    } catch (error) {
      this.app.notify(this.app.explain(error));
      return null;
    }
  }

  leaveCamera() {
    this.stage.lookThrough(null);
    this.stage.choosePoints(this.stage.cloud.visitor?.rows ?? []);
    this.canvas.focus();
  }

  step(by) {
    const count = this.map.images.length;
    const { through } = this.stage.marks;
    const from = typeof through === "number" ? through : by > 0 ? -1 : 0;
    this.lookThrough((from + by + count) % count);
  }

  changed() {
    const { through } = this.stage.marks;
    const isThrough = this.stage.isThrough;
    this.through.hidden = !isThrough;
    if (isThrough) this.tools.open = false; // it would lie on the picture
    this.stagePlace.classList.toggle("is-through", isThrough);
    this.tip.hidden = true;
    const name = through === "visitor" ? t("map_photograph") : isThrough ? this.map.images[through].name : "";
    this.throughName.textContent = name;
    this.canvas.dataset.through = name;
    if (!this.map) return;
    const own = typeof through === "number" ? name : null;
    this.app.state.write("maps", { map: this.maps.length > 1 || own ? this.map.name : null, camera: own });
    if (name) this.app.announce(t("map_looking", { name }));
  }

  describe(n) {
    const image = this.map.images[n];
    const camera = this.map.cameras[image.camera];
    clear(this.details);
    add(this.details, el("h2", {}, image.name),
      el("p", {}, t("map_image_numbers", { points: image.points.toLocaleString(), error: fixed(image.error, 2) })),
      el("p", { class: "quiet" }, t("map_camera_numbers", { model: camera.model, focal: fixed(camera.focal[0], 0), width: `${camera.size[0]}`, height: `${camera.size[1]}` })));
    if (!image.has_file) add(this.details, el("p", { class: "fault" }, t("map_image_gone")));
    add(this.details, el("p", {}, el("button", { type: "button", onclick: () => this.walk(1) }, t("map_walk"))));
  }

  /** A point: its numbers, and how each of its images sees it. */
  async choosePoint(row) {
    const { map } = this;
    this.stage?.choosePoints([row]);
    let point;
    try {
      point = await this.app.api.get(`${this.base}/points/${row}?version=${map.version}`);
    } catch (error) {
      this.app.notify(this.app.explain(error));
      return;
    }
    if (map !== this.map) return;
    const images = [...new Set(point.images.map((each) => each.image))];
    this.stage?.mark({ seeing: images });
    clear(this.details);
    const title = t("map_point", { count: `${images.length}` });
    add(this.details, el("h2", {}, title),
      el("p", { class: "quiet" }, t("map_point_numbers", { position: point.position.map((value) => fixed(value, 2)).join(", "), error: fixed(point.error, 2) })),
      patches(point, map, { path: (n) => this.app.api.url(this.imagePath(n)), enter: (n) => this.lookThrough(n) }));
    this.canvas.dataset.point = String(row);
    this.app.announce(title);
  }

  /** The next point that the chosen image sees, those that most images see first. */
  async walk(by) {
    const { map } = this;
    const image = typeof this.stage?.marks.image === "number" ? this.stage.marks.image : this.list.chosen ?? 0;
    if (this.walked?.image !== image) {
      const found = await this.seen(image);
      if (!found || map !== this.map) return;
      const images = this.stage ? (row) => this.stage.cloud.bytes[16 * row + 15] : () => 0;
      this.walked = { image, at: by > 0 ? -1 : 0, rows: [...new Set(found.points)].sort((a, b) => images(b) - images(a)) };
    }
    const { rows } = this.walked;
    if (!rows.length) return;
    this.walked.at = (this.walked.at + by + rows.length) % rows.length;
    await this.choosePoint(rows[this.walked.at]);
  }

  /** A key on the canvas that does not move the view; whether it was one. */
  key(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const does = {
      n: () => this.step(1),
      p: () => this.step(-1),
      j: () => this.walk(1),
      k: () => this.walk(-1),
      Enter: () => this.stage.marks.hovered != null && this.lookThrough(this.stage.marks.hovered),
      Escape: () => (this.stage.isThrough ? this.leaveCamera() : this.forgetPoint()),
    }[key];
    does?.();
    return Boolean(does);
  }
}

const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function longestTrack(content) {
  const bytes = new Uint8Array(content);
  let longest = 2;
  for (let i = 15; i < bytes.length; i += 16) longest = Math.max(longest, bytes[i]);
  return longest;
}

/** Red, green, blue in [0, 1] of a colour as browsers write it. */
function rgb(text) {
  const found = text.match(/[\d.]+/g)?.slice(0, 3).map((value) => Number(value) / 255);
  return found?.length === 3 ? found : [0.1, 0.4, 0.9];
}
