// Views of a map as numbers. A view is a pinhole: `rotation` (9, rows) from the map's axes to x right, y down, z ahead;
// `centre` (3), where it stands; `window`, the left, top, right and bottom edge of what it sees one unit ahead.

export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const plus = (a, b, times = 1) => [a[0] + times * b[0], a[1] + times * b[1], a[2] + times * b[2]];
const row = (matrix, i) => matrix.slice(3 * i, 3 * i + 3);
const mixed = (a, b, t) => a.map((value, i) => value + (b[i] - value) * t);

const HALF_VIEW = Math.tan((25 * Math.PI) / 180); // of the shorter edge of a canvas
const STEEPEST = 1.55; // radians from the level: straight down would have no ahead

/** From behind and above, as near as all of the positions stay in sight. An orbit turns around `target`, which is
 * relative to the scene's centre as the positions are. */
export function wholeScene(scene, positions, aspect) {
  const orbit = { target: [0, 0, 0], distance: 2.4 * scene.extent, yaw: 0.35, pitch: 0.4 };
  const { rotation, window } = orbitView(orbit, scene.axes, aspect);
  const [x, y, z] = [0, 1, 2].map((i) => row(rotation, i));
  const needed = positions.map((p) => Math.max(Math.abs(dot(x, p)) / window[2], Math.abs(dot(y, p)) / window[3]) - dot(z, p));
  const distance = 1.08 * needed.reduce((most, each) => Math.max(most, each), 0);
  return { ...orbit, distance: distance > 0 ? distance : orbit.distance };
}

/** The view of somebody who stands `distance` away from the target of an orbit and looks at it. */
export function orbitView(orbit, axes, aspect) {
  const [right, ahead, up] = [0, 1, 2].map((i) => row(axes, i));
  const [s, c, sp, cp] = [Math.sin(orbit.yaw), Math.cos(orbit.yaw), Math.sin(orbit.pitch), Math.cos(orbit.pitch)];
  const x = plus(right.map((value) => value * c), ahead, -s);
  const z = plus(plus(right.map((value) => value * s * cp), ahead, c * cp), up, -sp);
  const y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]];
  const [w, h] = aspect > 1 ? [HALF_VIEW * aspect, HALF_VIEW] : [HALF_VIEW, HALF_VIEW / aspect];
  return { rotation: [...x, ...y, ...z], centre: plus(orbit.target, z, -orbit.distance), window: [-w, -h, w, h] };
}

export function turned(orbit, yaw, pitch) {
  return { ...orbit, yaw: orbit.yaw + yaw, pitch: Math.min(STEEPEST, Math.max(-STEEPEST, orbit.pitch + pitch)) };
}

/** An orbit moved across its view: by shares of the height of what is seen. */
export function moved(orbit, axes, x, y) {
  const { rotation } = orbitView(orbit, axes, 1);
  const step = 2 * HALF_VIEW * orbit.distance;
  return { ...orbit, target: plus(plus(orbit.target, row(rotation, 0), x * step), row(rotation, 1), y * step) };
}

/** A camera's own view: pose (12) from the map to the camera, `plane` its picture's corners, `zoom` a part of it. */
export function cameraView(pose, plane, sceneCentre, aspect, zoom = { x: 0, y: 0, scale: 1 }) {
  const rotation = [0, 1, 2].flatMap((i) => pose.slice(4 * i, 4 * i + 3));
  const [left, top, right, bottom] = boundsOf(plane);
  let [w, h] = [(right - left) / 2, (bottom - top) / 2];
  const [x, y] = [(left + right) / 2 + zoom.x * w, (top + bottom) / 2 + zoom.y * h];
  if (w / h > aspect) h = w / aspect;
  else w = h * aspect;
  [w, h] = [w / zoom.scale, h / zoom.scale];
  return { rotation, centre: centreOf(pose, sceneCentre), window: [x - w, y - h, x + w, y + h] };
}

/** Where a camera stands, relative to the scene's centre. */
export function centreOf(pose, sceneCentre) {
  const found = [0, 1, 2].map((i) => -(pose[i] * pose[3] + pose[4 + i] * pose[7] + pose[8 + i] * pose[11]));
  return plus(found, sceneCentre, -1);
}

/** A point one unit ahead of a camera, at (x, y) of its image plane, times `size`: relative to the scene's centre. */
export function aheadOf(pose, centre, x, y, size) {
  return [0, 1, 2].map((i) => centre[i] + size * (pose[i] * x + pose[4 + i] * y + pose[8 + i]));
}

export function boundsOf(plane) {
  if (!plane) return [-0.5, -0.4, 0.5, 0.4];
  const found = [Infinity, Infinity, -Infinity, -Infinity];
  plane.forEach((value, i) => {
    found[i % 2] = Math.min(found[i % 2], value);
    found[2 + (i % 2)] = Math.max(found[2 + (i % 2)], value);
  });
  return found;
}

/** The view at `t` of the way from one to another. */
export function between(from, to, t) {
  return {
    rotation: rotationBetween(from.rotation, to.rotation, t),
    centre: mixed(from.centre, to.centre, t),
    window: mixed(from.window, to.window, t),
  };
}

function rotationBetween(from, to, t) {
  const [a, b] = [quaternion(from), quaternion(to)];
  const sign = a.reduce((sum, value, i) => sum + value * b[i], 0) < 0 ? -1 : 1;
  const q = mixed(a, b.map((value) => sign * value), t);
  const length = Math.hypot(...q) || 1;
  const [w, x, y, z] = q.map((value) => value / length);
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  ];
}

/** w, x, y, z of a rotation (Shepperd, 1978): by the largest of the four, so that nothing small is divided by. */
function quaternion(m) {
  const squares = [m[0] + m[4] + m[8], m[0] - m[4] - m[8], m[4] - m[0] - m[8], m[8] - m[0] - m[4]];
  const largest = squares.indexOf(Math.max(...squares));
  const q = [
    [squares[0] + 1, m[7] - m[5], m[2] - m[6], m[3] - m[1]],
    [m[7] - m[5], squares[1] + 1, m[1] + m[3], m[2] + m[6]],
    [m[2] - m[6], m[1] + m[3], squares[2] + 1, m[5] + m[7]],
    [m[3] - m[1], m[2] + m[6], m[5] + m[7], squares[3] + 1],
  ][largest];
  const length = Math.hypot(...q);
  return q.map((value) => value / length);
}

/** The matrix (16, by columns) from positions relative to the scene's centre to WebGL's clip space. */
export function clipMatrix(view, near, far) {
  const [left, top, right, bottom] = view.window;
  const rows = [0, 1, 2].map((i) => row(view.rotation, i)).map((r) => [...r, -dot(r, view.centre)]);
  const project = (x, y, z, plus) => rows[0].map((_, i) => x * rows[0][i] + y * rows[1][i] + z * rows[2][i] + (i === 3 ? plus : 0));
  const found = [
    project(2 / (right - left), 0, -(right + left) / (right - left), 0),
    project(0, -2 / (bottom - top), (bottom + top) / (bottom - top), 0),
    project(0, 0, (far + near) / (far - near), (-2 * far * near) / (far - near)),
    project(0, 0, 1, 0),
  ];
  return Float32Array.from({ length: 16 }, (_, i) => found[i % 4][i >> 2]);
}

/** Where a matrix of `clipMatrix` puts a position on a canvas, and its depth; null behind the viewer. */
export function onCanvas(matrix, position, width, height) {
  const [x, y, z] = position;
  const depth = matrix[3] * x + matrix[7] * y + matrix[11] * z + matrix[15];
  if (depth <= 0) return null;
  return [
    ((matrix[0] * x + matrix[4] * y + matrix[8] * z + matrix[12]) / depth + 1) * (width / 2),
    (1 - (matrix[1] * x + matrix[5] * y + matrix[9] * z + matrix[13]) / depth) * (height / 2),
    depth,
  ];
}
