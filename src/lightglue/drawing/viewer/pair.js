/* What is known of a matched pair, as typed arrays; no drawing here. */

const NONE = -1;

/** Four colours of scores from 0 to 1, as in the pictures that `lightglue match` writes. */
const SCORE_STOPS = [[214, 0, 111], [255, 140, 26], [255, 225, 77], [51, 240, 192]];
export const SHADES = 24;
export const SCORE_COLOURS = Array.from({ length: SHADES }, (_, i) => scoreColour(i / (SHADES - 1)));

export function scoreColour(score) {
  const place = Math.min(Math.max(score, 0), 1) * (SCORE_STOPS.length - 1);
  const low = Math.min(Math.floor(place), SCORE_STOPS.length - 2);
  const mixed = SCORE_STOPS[low].map((value, i) => Math.round(value + (SCORE_STOPS[low + 1][i] - value) * (place - low)));
  return `rgb(${mixed.join(",")})`;
}

export class Pair {
  /** @param json the pair as the service gives it, and pair.html holds it */
  constructor(json) {
    this.json = json;
    this.id = json.id;
    this.images = json.images;
    this.keypoints = [Float32Array.from(json.keypoints0), Float32Array.from(json.keypoints1)];
    this.matches = Int32Array.from(json.matches);
    this.scores = Float32Array.from(json.scores);
    this.size = this.scores.length; // number of matches at threshold `floor`
    this.points = [0, 1].map((side) => this.#ends(side, json[`points${side}`])); // of match k: [2k], [2k + 1]
    this.floor = json.floor ?? 0;
    this.layers = json.layers ?? null;
    this.dropped = [0, 1].map((side) => Int16Array.from(json.layers?.[`pruned${side}`] ?? []));
    this.matchOf = [0, 1].map((side) => { // keypoint -> its match
      const found = new Int32Array(this.keypoints[side].length / 2).fill(NONE);
      for (let k = 0; k < this.size; k++) found[this.matches[2 * k + side]] = k;
      return found;
    });
    this.shades = Uint8Array.from(this.scores, (score) => Math.round(Math.min(Math.max(score, 0), 1) * (SHADES - 1)));
    this.setGeometry(json.geometry ?? null);
  }

  #ends(side, refined) {
    if (refined) return Float32Array.from(refined);
    const ends = new Float32Array(2 * this.size);
    for (let k = 0; k < this.size; k++) {
      const keypoint = this.matches[2 * k + side];
      ends[2 * k] = this.keypoints[side][2 * keypoint];
      ends[2 * k + 1] = this.keypoints[side][2 * keypoint + 1];
    }
    return ends;
  }

  /** @param geometry as the service estimates it; null for none */
  setGeometry(geometry) {
    this.geometry = geometry;
    this.inlier = null; // 1 for those that agree
    if (!geometry) return;
    this.inlier = new Uint8Array(this.size);
    for (const row of geometry.inliers) this.inlier[row] = 1;
  }

  /** H, px of image 0 to px of image 1, row by row; null where none is known. */
  get homography() {
    if (this.geometry?.model === "homography" && this.geometry.matrix) return this.geometry.matrix.flat();
    return this.json.warp?.matrix ? this.json.warp.matrix.flat() : null;
  }

  /** How many matches score more than the threshold: the first so many, since the best come first. */
  countAbove(threshold) {
    const limit = Math.fround(threshold); // as the matcher compares: in float32, and strictly
    let low = 0;
    let high = this.size;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.scores[middle] > limit) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  countInliers(count) {
    let found = 0;
    if (this.inlier) for (let k = 0; k < count; k++) found += this.inlier[k];
    return found;
  }

  /** Counts of scores in `bins` equal steps from 0 to 1. */
  histogram(bins) {
    const counts = new Uint32Array(bins);
    for (const score of this.scores) counts[Math.min(bins - 1, Math.floor(score * bins))]++;
    return counts;
  }

  isInlier(k) {
    return this.inlier === null ? null : this.inlier[k] === 1;
  }

  /** Whether match k passes a filter "all", "inliers", "outliers". */
  passes(k, filter) {
    if (filter === "all" || this.inlier === null) return true;
    return (this.inlier[k] === 1) === (filter === "inliers");
  }

  /** How far match k is from the model, px; null where there is no matrix for it. */
  error(k) {
    const { geometry } = this;
    if (!geometry?.matrix) return null;
    const [x, y] = this.end(k, 0);
    const [u, v] = this.end(k, 1);
    const m = geometry.matrix.flat();
    if (geometry.model === "homography") {
      const w = m[6] * x + m[7] * y + m[8];
      return Math.hypot((m[0] * x + m[1] * y + m[2]) / w - u, (m[3] * x + m[4] * y + m[5]) / w - v);
    }
    if (geometry.model !== "fundamental") return null;
    const line = [m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5], m[6] * x + m[7] * y + m[8]];
    return Math.abs(line[0] * u + line[1] * v + line[2]) / Math.hypot(line[0], line[1]);
  }

  end(k, side) {
    return [this.points[side][2 * k], this.points[side][2 * k + 1]];
  }

  keypoint(i, side) {
    return [this.keypoints[side][2 * i], this.keypoints[side][2 * i + 1]];
  }

  count(side) {
    return this.keypoints[side].length / 2;
  }

  /** The layer that dropped a keypoint; 0 where it was kept; null where that is not known. */
  droppedAt(i, side) {
    return this.dropped[side].length ? this.dropped[side][i] : null;
  }

  /** Keypoints of a side that are left after a layer. */
  keptAfter(layer, side) {
    let kept = 0;
    for (const dropped of this.dropped[side]) kept += !dropped || dropped > layer;
    return kept;
  }
}

/** Which matches of `first` another pair of the same images has too, within `radius` px at both ends. */
export function shared(first, second, count0, count1, radius = 3) {
  const cells = new Map();
  const key = (x, y) => `${Math.floor(x / radius)},${Math.floor(y / radius)}`;
  for (let k = 0; k < count1; k++) {
    const at = key(...second.end(k, 0));
    if (!cells.has(at)) cells.set(at, []);
    cells.get(at).push(k);
  }
  const found = new Uint8Array(first.size);
  for (let k = 0; k < count0; k++) {
    const [x, y] = first.end(k, 0);
    const [u, v] = first.end(k, 1);
    search: for (let dy = -1; dy <= 1; dy++) {
      for (let dx = -1; dx <= 1; dx++) {
        for (const other of cells.get(key(x + dx * radius, y + dy * radius)) ?? []) {
          const [x1, y1] = second.end(other, 0);
          const [u1, v1] = second.end(other, 1);
          if (Math.hypot(x - x1, y - y1) > radius || Math.hypot(u - u1, v - v1) > radius) continue;
          found[k] = 1;
          break search;
        }
      }
    }
  }
  return found;
}
