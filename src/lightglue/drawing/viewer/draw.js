/* Drawing of lines and points on a 2D context. Colours of scores are batched, so that thousands of lines are few strokes. */

import { SCORE_COLOURS, SHADES } from "./pair.js";

export const INK = { outlier: "#b9b9c2", plain: "#d6d6de", accent: "#ffffff", halo: "#000000", only: "#ff8c1a", both: "#b9b9c2",
  kept: "#33f0c0", now: "#ff8c1a", gone: "#8b8b94" };

/** The bit of a pane that the eye can see is cut out, so that nothing is drawn over the neighbour. */
export function within(context, rectangle, paint) {
  context.save();
  context.beginPath();
  context.rect(rectangle.x, rectangle.y, rectangle.width, rectangle.height);
  context.clip();
  paint();
  context.restore();
}

export function drawPicture(context, pane, picture) {
  within(context, pane.rectangle, () => {
    const [x, y] = pane.put(-0.5, -0.5);
    context.imageSmoothingEnabled = pane.scale < 8; // near by, pixels are seen as pixels
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, x, y, pane.image.width * pane.scale, pane.image.height * pane.scale);
  });
}

/** Screen positions x, y of the first `count` points of a pane's image: Float32Array. */
export function placed(points, { rectangle, centre, scale }, count, out = new Float32Array(2 * count)) {
  const left = rectangle.x + rectangle.width / 2 - centre[0] * scale;
  const top = rectangle.y + rectangle.height / 2 - centre[1] * scale;
  for (let k = 0; k < count; k++) {
    out[2 * k] = left + points[2 * k] * scale;
    out[2 * k + 1] = top + points[2 * k + 1] * scale;
  }
  return out;
}

function inside(ends, k, { x, y, width, height }) {
  const px = ends[2 * k];
  const py = ends[2 * k + 1];
  return px >= x && py >= y && px <= x + width && py <= y + height;
}

/**
 * Lines of the first `count` matches for which `style(k)` gives a group, by group.
 * groups: [{ colour, width, alpha }]; style(k) -> index into groups, or -1 for none.
 */
export function drawLines(context, ends, panes, count, groups, style) {
  const paths = groups.map(() => null);
  for (let k = count - 1; k >= 0; k--) { // the best last, on top within their group
    const group = style(k);
    if (group < 0) continue;
    if (!inside(ends[0], k, panes[0].rectangle) || !inside(ends[1], k, panes[1].rectangle)) continue;
    const path = (paths[group] ??= new Path2D());
    path.moveTo(ends[0][2 * k], ends[0][2 * k + 1]);
    path.lineTo(ends[1][2 * k], ends[1][2 * k + 1]);
  }
  groups.forEach((group, i) => {
    if (!paths[i]) return;
    context.strokeStyle = group.colour;
    context.lineWidth = group.width;
    context.globalAlpha = group.alpha;
    context.stroke(paths[i]);
  });
  context.globalAlpha = 1;
}

/** Dots at the first `count` places, batched by group like lines; large ones have a rim, hollow ones are rings. */
export function drawDots(context, places, pane, count, groups, style, radius) {
  const paths = groups.map(() => null);
  for (let k = count - 1; k >= 0; k--) {
    const group = style(k);
    if (group < 0 || !inside(places, k, pane.rectangle)) continue;
    const path = (paths[group] ??= new Path2D());
    const x = places[2 * k];
    const y = places[2 * k + 1];
    path.moveTo(x + radius, y);
    path.arc(x, y, radius, 0, 2 * Math.PI);
  }
  groups.forEach(({ alpha, colour, hollow }, i) => {
    if (!paths[i]) return;
    context.globalAlpha = alpha;
    context.strokeStyle = "#000a";
    context.lineWidth = hollow ? 2.5 : 2;
    if (radius > 2) context.stroke(paths[i]);
    context.fillStyle = context.strokeStyle = colour;
    context.lineWidth = 1.1;
    if (hollow) context.stroke(paths[i]);
    else context.fill(paths[i]);
  });
  context.globalAlpha = 1;
}

/** One match so that the eye finds it: a ring at both ends, a line with a dark rim. */
export function drawMatch(context, a, b, colour) {
  for (const [stroke, width] of [[INK.halo, 5], [colour, 2.5]]) {
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.globalAlpha = stroke === INK.halo ? 0.7 : 1;
    context.beginPath();
    if (a && b) {
      context.moveTo(a[0], a[1]);
      context.lineTo(b[0], b[1]);
    }
    for (const end of [a, b]) {
      if (!end) continue;
      context.moveTo(end[0] + 7, end[1]);
      context.arc(end[0], end[1], 7, 0, 2 * Math.PI);
    }
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** One group for each shade of the scores. */
export function scoreGroups(width, alpha) {
  return Array.from({ length: SHADES }, (_, i) => ({ colour: SCORE_COLOURS[i], width, alpha }));
}
