/* The surroundings of a point, magnified: whether a match is true is seen there. */

const REACH = 24; // px of the image to each side

export function drawPatch(canvas, picture, image, [x, y]) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!picture) return;
  const scale = canvas.width / (2 * REACH);
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, (-x - 0.5 + REACH) * scale, (-y - 0.5 + REACH) * scale, image.width * scale, image.height * scale);
  const middle = canvas.width / 2;
  for (const [colour, width] of [["#000a", 5], ["#63b6f2", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(middle + dx * 10, middle + dy * 10);
      context.lineTo(middle + dx * 34, middle + dy * 34);
    }
    context.stroke();
  }
}
