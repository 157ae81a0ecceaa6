// The images of a map as a table, and a point as its images see it.

import { el } from "./dom.js";
import { t } from "./i18n.js";

const PATCH = 72; // CSS px of a piece of a picture
const AROUND = 60; // px of the image that it shows

/** The images, to be gone through by arrows. on: {enter(n), focus(n)} */
export function cameraTable(map, on) {
  const rows = map.images.map((image, n) => {
    const button = el("button", { type: "button", class: "plain", onclick: () => on.enter(n), onfocus: () => on.focus(n), onblur: () => on.focus(null) }, image.name);
    const row = el("tr", { onmouseenter: () => on.focus(n), onmouseleave: () => on.focus(null) },
      el("th", { scope: "row" }, button),
      el("td", {}, image.points.toLocaleString()),
      el("td", {}, image.error === null ? "–" : image.error.toFixed(2)));
    return { row, button };
  });
  const head = ["map_image", "map_points", "map_error"].map((key) => el("th", { scope: "col" }, t(key)));
  const table = el("table", { class: "map-table" }, el("caption", {}, t("map_images")), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows.map((each) => each.row)));
  table.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = rows.findIndex((each) => each.button === document.activeElement);
    if (!step || at < 0) return;
    rows[Math.min(rows.length - 1, Math.max(0, at + step))].button.focus();
    event.preventDefault();
  });
  const found = { element: el("div", { class: "map-scroll" }, table), chosen: null };
  found.choose = (n) => {
    found.chosen = n;
    rows.forEach((each, i) => {
      each.row.classList.toggle("is-chosen", i === n);
      if (i === n) each.button.setAttribute("aria-current", "true");
      else each.button.removeAttribute("aria-current");
    });
  };
  return found;
}

/** Pieces of the pictures around a point. on: {path(n) of a picture, enter(n)} */
export function patches(point, map, on) {
  const nearest = new Map(); // one place of each image: a map may hold two keypoints of one image that are nearly one
  for (const seen of point.images) {
    if ((nearest.get(seen.image)?.error ?? Infinity) > (seen.error ?? 0)) nearest.set(seen.image, seen);
  }
  return el("ul", { class: "map-patches" }, [...nearest.values()].map((seen) => {
    const image = map.images[seen.image];
    const canvas = el("canvas", { width: String(2 * PATCH), height: String(2 * PATCH), "aria-hidden": "true" });
    if (image.has_file) paint(canvas, on.path(seen.image), seen.pixel, map.cameras[image.camera].size);
    const error = seen.error === null ? "" : ` ${seen.error.toFixed(2)} px`;
    return el("li", {}, el("button", { type: "button", class: "plain", onclick: () => on.enter(seen.image) }, canvas, el("span", {}, image.name), el("small", {}, error)));
  }));
}

/** A piece of the picture at `path`, around a px of the image, with a ring at the px. */
function paint(canvas, path, [x, y], [width]) {
  const picture = new Image();
  picture.onload = () => {
    const context = canvas.getContext("2d");
    const share = picture.naturalWidth / width; // pictures of large images are sent smaller
    const half = (AROUND / 2) * Math.max(1, width / 800) * share;
    const [u, v] = [(x + 0.5) * share, (y + 0.5) * share];
    context.drawImage(picture, u - half, v - half, 2 * half, 2 * half, 0, 0, canvas.width, canvas.height);
    for (const [style, line] of [["#000a", 5], ["#fff", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = line;
      context.beginPath();
      context.arc(PATCH, PATCH, 10, 0, 2 * Math.PI);
      context.stroke();
    }
  };
  picture.src = path;
}
