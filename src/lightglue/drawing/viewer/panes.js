/* Where images lie on the screen: panes, zoom and pan, together or apart. No drawing here.
 *
 * A pane shows an image of width x height px in a rectangle of the canvas (CSS px); its camera looks at the image's point
 * `centre` (px; (0, 0) is the centre of the top-left pixel) with `zoom` times the scale at which the image fits.
 */

const GAP = 6;
const LARGEST = 64;

export class Pane {
  constructor(width, height) {
    this.image = { width, height };
    this.rectangle = { x: 0, y: 0, width: 1, height: 1 };
    this.reset();
  }

  reset() {
    this.zoom = 1;
    this.centre = [(this.image.width - 1) / 2, (this.image.height - 1) / 2];
  }

  get fit() {
    return Math.min(this.rectangle.width / this.image.width, this.rectangle.height / this.image.height);
  }

  get scale() {
    return this.fit * this.zoom;
  }

  /** Screen position of a point of the image. */
  put(x, y) {
    const { x: left, y: top, width, height } = this.rectangle;
    return [left + width / 2 + (x - this.centre[0]) * this.scale, top + height / 2 + (y - this.centre[1]) * this.scale];
  }

  /** The point of the image at a screen position. */
  take(x, y) {
    const { x: left, y: top, width, height } = this.rectangle;
    return [this.centre[0] + (x - left - width / 2) / this.scale, this.centre[1] + (y - top - height / 2) / this.scale];
  }

  holds(x, y) {
    const { x: left, y: top, width, height } = this.rectangle;
    return x >= left && x < left + width && y >= top && y < top + height;
  }

  move(dx, dy) {
    this.centre = [this.centre[0] - dx / this.scale, this.centre[1] - dy / this.scale];
    this.clamp();
  }

  zoomAt(factor, x, y) {
    const [px, py] = this.take(x, y);
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), LARGEST);
    const [qx, qy] = this.take(x, y);
    this.centre = [this.centre[0] + px - qx, this.centre[1] + py - qy];
    this.clamp();
  }

  /** No further than to the image's edge. */
  clamp() {
    const { width, height } = this.image;
    const half = [this.rectangle.width / 2 / this.scale, this.rectangle.height / 2 / this.scale];
    this.centre = [width, height].map((edge, i) => {
      const low = half[i] - 0.5;
      const high = edge - 0.5 - half[i];
      return low > high ? (edge - 1) / 2 : Math.min(Math.max(this.centre[i], low), high);
    });
  }
}

/** Rectangles for two images in a canvas of this width; the height is what they need, up to `most`. */
export function arrange(width, most, sizes, layout) {
  const side = layout === "side" || (layout === "auto" && width >= 620);
  if (side) {
    const each = (width - GAP) / 2;
    const height = Math.min(most, Math.max(...sizes.map((size) => (each * size.height) / size.width)));
    return { height, rectangles: [rectangle(0, 0, each, height), rectangle(each + GAP, 0, each, height)] };
  }
  const needed = sizes.map((size) => (width * size.height) / size.width);
  const share = Math.min(1, (most * 1.25 - GAP) / (needed[0] + needed[1]));
  const heights = needed.map((height) => height * share);
  return {
    height: heights[0] + heights[1] + GAP,
    rectangles: [rectangle(0, 0, width, heights[0]), rectangle(0, heights[0] + GAP, width, heights[1])],
  };
}

export function single(width, most, size) {
  const height = Math.min(most, (width * size.height) / size.width);
  return { height, rectangles: [rectangle(0, 0, width, height)] };
}

function rectangle(x, y, width, height) {
  return { x, y, width, height };
}

/** Where a point of one image lies in the other: moved as the matches around it are. null without matches. */
export function follow(pair, count, side, x, y) {
  const from = pair.points[side];
  const to = pair.points[1 - side];
  const reach = (pair.images[side].width * 0.06) ** 2;
  const agreed = pair.inlier && pair.countInliers(count) >= 8 ? pair.inlier : null;
  let weight = 0;
  let mx = 0;
  let my = 0;
  for (let k = 0; k < count; k++) {
    if (agreed && !agreed[k]) continue;
    const dx = from[2 * k] - x;
    const dy = from[2 * k + 1] - y;
    const w = 1 / (dx * dx + dy * dy + reach) ** 2;
    weight += w;
    mx += w * (to[2 * k] - from[2 * k]);
    my += w * (to[2 * k + 1] - from[2 * k + 1]);
  }
  return weight ? [x + mx / weight, y + my / weight] : null;
}
