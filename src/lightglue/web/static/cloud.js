// Points, cameras and pictures of a map, drawn by WebGL 2. No events and no fetching: `draw` a view, `pick` in it.

import { aheadOf, boundsOf, centreOf, clipMatrix, onCanvas } from "./space.js";

const POINTS = `#version 300 es
uniform mat4 clip; uniform float size; uniform float least; uniform vec4 tint;
layout(location=0) in vec3 position; layout(location=1) in vec3 colour; layout(location=2) in float images;
out vec3 shade;
void main() {
  gl_Position = images < least ? vec4(2, 2, 2, 1) : clip * vec4(position, 1);
  gl_PointSize = size; shade = mix(colour, tint.rgb, tint.a);
}`;
const DOT = `#version 300 es
precision mediump float; in vec3 shade; out vec4 found;
void main() { vec2 p = 2.0 * gl_PointCoord - 1.0; if (dot(p, p) > 1.0) discard; found = vec4(shade, 1); }`;
const LINES = `#version 300 es
uniform mat4 clip; layout(location=0) in vec3 position;
void main() { gl_Position = clip * vec4(position, 1); }`;
const FLAT = `#version 300 es
precision mediump float; uniform vec4 tint; out vec4 found;
void main() { found = vec4(tint.rgb * tint.a, tint.a); }`;
const PICTURE = `#version 300 es
uniform mat4 clip; layout(location=0) in vec3 position; layout(location=1) in vec2 place; out vec2 at;
void main() { gl_Position = clip * vec4(position, 1); at = place; }`;
const TEXEL = `#version 300 es
precision mediump float; uniform sampler2D picture; uniform float opacity; in vec2 at; out vec4 found;
void main() { found = vec4(texture(picture, at).rgb * opacity, opacity); }`;

const NEAREST = 9; // px within which a click hits a point
const EDGES = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1];

export class Cloud {
  /** Throws where the browser has no WebGL 2. */
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { alpha: true, antialias: true, premultipliedAlpha: true });
    if (!this.gl) throw new Error("WebGL 2");
    this.settings = { pointSize: 2.5, leastImages: 0, cameraScale: 1, dark: false, accent: [0.1, 0.4, 0.9] };
    this.#programs();
  }

  #programs() {
    this.programs = {
      points: this.#program(POINTS, DOT),
      lines: this.#program(LINES, FLAT),
      picture: this.#program(PICTURE, TEXEL),
    };
    this.buffers = new Map();
    this.textures = new Map();
  }

  /** After a lost context: the same again. */
  restore() {
    const { map, content, visitor, pictures, chosen } = this;
    this.#programs();
    if (!map) return;
    this.show(map, content);
    this.choose(chosen);
    if (visitor) this.setVisitor(visitor);
    for (const [key, picture] of pictures ?? []) this.setPicture(key, picture);
  }

  #program(vertex, fragment) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getProgramInfoLog(program));
    }
    const count = gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS) ?? 0;
    const places = {};
    for (let i = 0; i < count; i++) {
      const { name } = gl.getActiveUniform(program, i);
      places[name] = gl.getUniformLocation(program, name);
    }
    return { program, places };
  }

  #store(name, data, target = this.gl.ARRAY_BUFFER) {
    const { gl } = this;
    gl.deleteBuffer(this.buffers.get(name) ?? null);
    const buffer = gl.createBuffer();
    this.buffers.set(name, buffer);
    gl.bindBuffer(target, buffer);
    gl.bufferData(target, data, gl.STATIC_DRAW);
  }

  clear() {
    for (const key of [...this.textures.keys()]) this.setPicture(key, null);
    Object.assign(this, { map: null, content: null, visitor: null });
    this.gl.clearColor(0, 0, 0, 0);
    this.gl.clear(this.gl.COLOR_BUFFER_BIT | this.gl.DEPTH_BUFFER_BIT);
  }

  /** Take a map as the service describes it, and its points as bytes. */
  show(map, content) {
    for (const key of [...this.textures.keys()]) this.setPicture(key, null);
    Object.assign(this, { map, content, pictures: new Map(), visitor: null });
    this.count = map.points;
    this.positions = new Float32Array(content); // with stride 4: the last of each is colour
    this.bytes = new Uint8Array(content);
    this.#store("points", content);
    this.poses = map.images.map((image) => image.cam_from_world);
    this.planes = map.images.map((image) => map.cameras[image.camera].plane);
    this.centres = this.poses.map((pose) => centreOf(pose, map.scene.centre));
    this.#cameras();
    this.choose([]);
  }

  #cameras() {
    this.corners = this.poses.map((pose, i) => this.#corners(pose, this.planes[i], this.centres[i]));
    this.#store("cameras", new Float32Array(this.corners.flatMap((found) => EDGES.flatMap((edge) => found[edge]))));
  }

  /** A camera's centre and the four corners of its picture. */
  #corners(pose, plane, centre) {
    const size = this.map.scene.camera_size * this.settings.cameraScale;
    const [left, top, right, bottom] = boundsOf(plane);
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    return [centre, ...corners.map(([x, y]) => aheadOf(pose, centre, x, y, size))];
  }

  setCameraScale(scale) {
    this.settings.cameraScale = scale;
    if (!this.map) return;
    this.#cameras();
    for (const key of this.textures.keys()) this.#mesh(key);
    if (this.visitor) this.setVisitor(this.visitor);
  }

  /** Points that are drawn larger and in the accent's colour, by their rows. */
  choose(rows) {
    this.chosen = rows.filter((row) => row >= 0 && row < this.count);
    this.#store("chosen", new Uint32Array(this.chosen), this.gl.ELEMENT_ARRAY_BUFFER);
  }

  /** A photograph that was localized: {pose, plane, rows of its points}, or null. */
  setVisitor(visitor) {
    this.visitor = visitor;
    if (!visitor) return;
    const centre = centreOf(visitor.pose, this.map.scene.centre);
    const corners = this.#corners(visitor.pose, visitor.plane, centre);
    this.visitorCorners = corners;
    const rays = visitor.rows.filter((row) => row >= 0).flatMap((row) => [...centre, ...this.position(row)]);
    this.#store("visitor", new Float32Array([...EDGES.flatMap((edge) => corners[edge]), ...rays]));
    this.rays = rays.length / 3;
  }

  /** The picture of image `key`, or of the "visitor"; null takes it away. */
  setPicture(key, picture) {
    const { gl } = this;
    const held = this.textures.get(key);
    if (held) {
      gl.deleteTexture(held.texture);
      this.textures.delete(key);
      this.pictures?.delete(key);
    }
    if (!picture || !this.#planeOf(key)) return;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    this.textures.set(key, { texture });
    this.pictures.set(key, picture);
    this.#mesh(key);
  }

  #planeOf(key) {
    return key === "visitor" ? this.visitor?.plane : this.planes[key];
  }

  /** The picture's corners and where in it each is, for its texture: many for a lens that distorts. */
  #mesh(key) {
    const plane = this.#planeOf(key);
    const pose = key === "visitor" ? this.visitor.pose : this.poses[key];
    const centre = centreOf(pose, this.map.scene.centre);
    const size = this.map.scene.camera_size * this.settings.cameraScale;
    const side = Math.sqrt(plane.length / 2);
    const found = [];
    const corner = (i, j) => {
      const at = 2 * (i * side + j);
      return [...aheadOf(pose, centre, plane[at], plane[at + 1], size), j / (side - 1), i / (side - 1)];
    };
    for (let i = 0; i + 1 < side; i++) {
      for (let j = 0; j + 1 < side; j++) {
        const [a, b, c, d] = [corner(i, j), corner(i, j + 1), corner(i + 1, j + 1), corner(i + 1, j)];
        found.push(...a, ...b, ...c, ...a, ...c, ...d);
      }
    }
    this.#store(`picture ${key}`, new Float32Array(found));
    this.textures.get(key).count = found.length / 5;
  }

  position(row) {
    return Array.from(this.positions.subarray(4 * row, 4 * row + 3));
  }

  /** Positions that should be in sight: cameras, and some of the points but the stray ones. */
  landmarks() {
    const step = Math.max(1, Math.floor(this.count / 2000));
    const found = this.corners.flat();
    for (let row = 0; row < this.count; row += step) {
      const position = this.position(row);
      if (Math.hypot(...position) <= this.map.scene.extent) found.push(position);
    }
    return found;
  }

  resize() {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((edge) => Math.max(1, Math.round(edge * scale)));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.scale = scale;
  }

  matrix(view) {
    const { extent } = this.map.scene;
    const away = Math.hypot(...view.centre);
    return clipMatrix(view, (away + extent) * 1e-4, (away + extent) * 200);
  }

  /** Draw what a view sees. marks: {through: whose picture lies behind the points, opacity, hovered, chosen image, rays} */
  draw(view, marks = {}) {
    const { gl } = this;
    if (!this.map || gl.isContextLost()) return;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const clip = this.matrix(view);
    const isThrough = marks.through !== undefined && marks.through !== null;
    if (isThrough) this.#pictures(clip, [marks.through], marks.opacity ?? 1);
    gl.enable(gl.DEPTH_TEST);
    if (!isThrough) this.#pictures(clip, [...this.textures.keys()], 1);
    this.#points(clip, isThrough);
    if (!isThrough) this.#lines(clip, marks);
    gl.disable(gl.DEPTH_TEST);
    if (this.chosen.length) this.#chosenPoints(clip);
    if (!isThrough) this.#marked(clip, marks);
  }

  #use(name, uniforms) {
    const { gl } = this;
    const { program, places } = this.programs[name];
    gl.useProgram(program);
    for (const [key, value] of Object.entries(uniforms)) {
      if (value.length === 16) gl.uniformMatrix4fv(places[key], false, value);
      else if (value.length === 4) gl.uniform4fv(places[key], value);
      else gl.uniform1f(places[key], value);
    }
  }

  #pointers(name, ...parts) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers.get(name));
    for (let i = 0; i < 3; i++) gl.disableVertexAttribArray(i);
    parts.forEach(([count, type, normalized, stride, offset], i) => {
      gl.enableVertexAttribArray(i);
      gl.vertexAttribPointer(i, count, type, normalized, stride, offset);
    });
  }

  #pointPointers() {
    const { gl } = this;
    this.#pointers("points", [3, gl.FLOAT, false, 16, 0], [3, gl.UNSIGNED_BYTE, true, 16, 12], [1, gl.UNSIGNED_BYTE, false, 16, 15]);
  }

  #points(clip, isThrough) {
    const { gl, settings } = this;
    const size = settings.pointSize * this.scale * (isThrough ? 1.4 : 1);
    this.#use("points", { clip, size, least: settings.leastImages, tint: [0, 0, 0, 0] });
    this.#pointPointers();
    gl.drawArrays(gl.POINTS, 0, this.count);
  }

  #chosenPoints(clip) {
    const { gl, settings } = this;
    const few = this.chosen.length === 1 ? 11 : Math.max(4, settings.pointSize * 1.8);
    this.#pointPointers();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffers.get("chosen"));
    for (const [size, tint] of [[few + 2, [1, 1, 1, 1]], [few, [...settings.accent, 1]]]) {
      this.#use("points", { clip, size: size * this.scale, least: 0, tint });
      gl.drawElements(gl.POINTS, this.chosen.length, gl.UNSIGNED_INT, 0);
    }
  }

  #line(clip, buffer, tint, first, count, mode = this.gl.LINES) {
    this.#use("lines", { clip, tint });
    this.#pointers(buffer, [3, this.gl.FLOAT, false, 12, 0]);
    if (count > 0) this.gl.drawArrays(mode, first, count);
  }

  #lines(clip) {
    const gray = this.settings.dark ? 0.75 : 0.3;
    this.#line(clip, "cameras", [gray, gray, gray, 0.85], 0, EDGES.length * this.poses.length);
  }

  /** What lies above all else: cameras that are pointed at or chosen, and a localized photograph. */
  #marked(clip, marks) {
    const accent = this.settings.accent;
    const drawn = (key) => key !== undefined && key !== null && key !== "visitor";
    for (const image of marks.seeing ?? []) this.#line(clip, "cameras", [...accent, 0.7], EDGES.length * image, EDGES.length);
    for (const key of [marks.hovered, marks.image].filter(drawn)) {
      this.#thick(clip, "cameras", EDGES.length * key);
    }
    if (!this.visitor) return;
    this.#line(clip, "visitor", [...accent, 0.18], EDGES.length, this.rays);
    this.#thick(clip, "visitor", 0);
  }

  /** Lines of about 3 px: WebGL draws those of one, so the same is drawn at small offsets. */
  #thick(clip, buffer, first) {
    const [dx, dy] = [(2 * this.scale) / this.canvas.width, (2 * this.scale) / this.canvas.height];
    for (const [x, y] of [[0, 0], [dx, 0], [-dx, 0], [0, dy], [0, -dy]]) {
      const shifted = clip.map((value, i) => value + (i % 4 === 0 ? x : i % 4 === 1 ? y : 0) * clip[i - (i % 4) + 3]);
      this.#line(shifted, buffer, [...this.settings.accent, 1], first, EDGES.length);
    }
  }

  #pictures(clip, keys, opacity) {
    const { gl } = this;
    for (const key of keys) {
      const held = this.textures.get(key);
      if (!held) continue;
      this.#use("picture", { clip, opacity });
      this.#pointers(`picture ${key}`, [3, gl.FLOAT, false, 20, 0], [2, gl.FLOAT, false, 20, 12]);
      gl.bindTexture(gl.TEXTURE_2D, held.texture);
      gl.drawArrays(gl.TRIANGLES, 0, held.count);
    }
  }

  /** What lies at (x, y) of the canvas, CSS px: {image} or {visitor} or {point}, or null. Nearer ones hide others. */
  pick(view, x, y, hasCameras = true, hasPoints = true) {
    if (!this.map) return null;
    const matrix = this.matrix(view);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const camera = hasCameras && this.#pickCamera(matrix, x, y, width, height);
    return camera || (hasPoints ? this.#pickPoint(matrix, x, y, width, height) : null);
  }

  #pickCamera(matrix, x, y, width, height) {
    let best = null;
    const all = this.corners.map((corners, image) => ({ corners, found: { image } }));
    if (this.visitor) all.push({ corners: this.visitorCorners, found: { visitor: true } });
    for (const { corners, found } of all) {
      const seen = corners.map((corner) => onCanvas(matrix, corner, width, height));
      if (seen.includes(null)) continue;
      const [apex, ...plane] = seen;
      const faces = [plane, ...plane.map((corner, i) => [apex, corner, plane[(i + 1) % 4]])];
      const isHit = faces.some((face) => isInside(face, x, y)) || Math.hypot(apex[0] - x, apex[1] - y) < NEAREST;
      if (isHit && (!best || apex[2] < best.depth)) best = { depth: apex[2], found };
    }
    return best && best.found;
  }

  #pickPoint(matrix, x, y, width, height) {
    const m = matrix;
    const { positions, bytes, settings } = this;
    let best = -1;
    let score = Infinity;
    for (let row = 0, at = 0; row < this.count; row++, at += 4) {
      const X = positions[at];
      const Y = positions[at + 1];
      const Z = positions[at + 2];
      const depth = m[3] * X + m[7] * Y + m[11] * Z + m[15];
      if (depth <= 0 || bytes[4 * at + 15] < settings.leastImages) continue;
      const dx = ((m[0] * X + m[4] * Y + m[8] * Z + m[12]) / depth + 1) * (width / 2) - x;
      const dy = (1 - (m[1] * X + m[5] * Y + m[9] * Z + m[13]) / depth) * (height / 2) - y;
      const away = dx * dx + dy * dy;
      if (away > NEAREST * NEAREST) continue;
      const own = depth * (1 + away / (NEAREST * NEAREST)); // of two that are as near, the one in front
      if (own >= score) continue;
      best = row;
      score = own;
    }
    return best < 0 ? null : { point: best };
  }
}

function isInside(polygon, x, y) {
  let isIn = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [polygon[i], polygon[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) isIn = !isIn;
  }
  return isIn;
}
