/* Image 1 as seen from image 0, by the homography H (px of image 0 to px of image 1, nine numbers row by row). */

const LARGEST = 2048; // px of an edge of the picture

/** A canvas of image 0's shape; transparent where image 1 shows nothing. sizes: { width, height } of both, px. */
export function warped(picture1, sizes, H) {
  const shrink = Math.min(1, LARGEST / Math.max(sizes[0].width, sizes[0].height));
  const width = Math.max(1, Math.round(sizes[0].width * shrink));
  const height = Math.max(1, Math.round(sizes[0].height * shrink));
  const source = pixelsOf(picture1, sizes[1], shrink);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const side = sideShown(H, sizes);
  const out = image.data;
  const { data } = source;
  const step = [source.width / sizes[1].width, source.height / sizes[1].height];
  for (let row = 0, at = 0; row < height; row++) {
    const y = (row + 0.5) / shrink - 0.5;
    for (let column = 0; column < width; column++, at += 4) {
      const x = (column + 0.5) / shrink - 0.5;
      const w = H[6] * x + H[7] * y + H[8];
      if (w * side <= 0) continue;
      const u = ((H[0] * x + H[1] * y + H[2]) / w + 0.5) * step[0] - 0.5;
      const v = ((H[3] * x + H[4] * y + H[5]) / w + 0.5) * step[1] - 0.5;
      if (u < -0.5 || v < -0.5 || u > source.width - 0.5 || v > source.height - 0.5) continue;
      sample(data, source.width, source.height, u, v, out, at);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function pixelsOf(picture, size, shrink) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(size.width * Math.min(1, shrink * 1.5)));
  canvas.height = Math.max(1, Math.round(size.height * Math.min(1, shrink * 1.5)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function sample(data, width, height, u, v, out, at) {
  const x = Math.min(Math.max(u, 0), width - 1);
  const y = Math.min(Math.max(v, 0), height - 1);
  const x0 = Math.floor(x);
  const y0 = Math.floor(y);
  const x1 = Math.min(x0 + 1, width - 1);
  const y1 = Math.min(y0 + 1, height - 1);
  const a = x - x0;
  const b = y - y0;
  const p = 4 * (y0 * width + x0);
  const q = 4 * (y0 * width + x1);
  const r = 4 * (y1 * width + x0);
  const s = 4 * (y1 * width + x1);
  for (let c = 0; c < 3; c++) {
    out[at + c] = (1 - b) * ((1 - a) * data[p + c] + a * data[q + c]) + b * ((1 - a) * data[r + c] + a * data[s + c]);
  }
  out[at + 3] = 255;
}

/** Beyond the horizon a homography shows the image mirrored. The sign of H is free: the side that shows more is in front. */
function sideShown(H, [first, second]) {
  const shown = { "1": 0, "-1": 0 };
  for (let i = 0; i < 24; i++) {
    for (let j = 0; j < 24; j++) {
      const x = ((i + 0.5) / 24) * first.width;
      const y = ((j + 0.5) / 24) * first.height;
      const w = H[6] * x + H[7] * y + H[8];
      const u = (H[0] * x + H[1] * y + H[2]) / w;
      const v = (H[3] * x + H[4] * y + H[5]) / w;
      if (u >= 0 && v >= 0 && u < second.width && v < second.height) shown[w > 0 ? 1 : -1]++;
    }
  }
  return shown[1] >= shown[-1] ? 1 : -1;
}
