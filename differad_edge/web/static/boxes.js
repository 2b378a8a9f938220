// A picture with boxes on a canvas, or the part of it that somebody wants to see closer.
const COLOURS = { NG: "#ff4d57", OK: "#4fd08a" };
const OTHER = "#ffc233";

// view: {x, y, width, height} in pixels of the picture. boxes: [{box, label, dashed}] in the same pixels;
// sourceSize: [width, height] of the picture that the boxes belong to, when `picture` is a smaller copy of it.
export function drawPicture(canvas, picture, { boxes = [], verdict = "", view = null, sourceSize = null }) {
  const full = sourceSize ?? [picture.width, picture.height];
  const area = view ?? { x: 0, y: 0, width: full[0], height: full[1] };
  const factor = picture.width / full[0];
  const width = Math.round(Math.min(1600, Math.max(area.width * factor, view ? 900 : 0)));
  const height = Math.max(1, Math.round((width * area.height) / area.width));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const pen = canvas.getContext("2d");
  const scale = width / area.width;
  pen.clearRect(0, 0, width, height);
  pen.imageSmoothingEnabled = scale < 4;
  pen.drawImage(picture, area.x * factor, area.y * factor, area.width * factor, area.height * factor, 0, 0, width, height);
  // In pixels of the screen, however large the canvas is drawn.
  const across = Math.min(canvas.clientWidth, (canvas.clientHeight * width) / height) || width;
  const unit = width / across;
  const line = Math.max(2, across / 320) * unit;
  for (const { box, label, dashed } of boxes) {
    const [left, top, right, bottom] = [
      (box[0] - area.x) * scale,
      (box[1] - area.y) * scale,
      (box[2] - area.x) * scale,
      (box[3] - area.y) * scale,
    ];
    const ink = COLOURS[verdict] ?? OTHER;
    pen.setLineDash([]);
    pen.lineJoin = "round";
    pen.strokeStyle = "rgb(0 0 0 / 75%)";
    pen.lineWidth = line * 2.2;
    pen.strokeRect(left - line, top - line, right - left + 2 * line, bottom - top + 2 * line);
    pen.setLineDash(dashed ? [line * 3, line * 2] : []);
    pen.strokeStyle = ink;
    pen.lineWidth = line;
    pen.strokeRect(left - line, top - line, right - left + 2 * line, bottom - top + 2 * line);
    if (label) tag(pen, label, left - 1.5 * line, top - 1.5 * line, Math.max(14, across / 42) * unit, ink, width);
  }
}

function tag(pen, label, x, y, size, ink, width) {
  pen.font = `700 ${size}px system-ui, sans-serif`;
  const wide = pen.measureText(label).width + size * 0.8;
  const high = size * 1.4;
  const left = Math.max(0, Math.min(x, width - wide));
  const top = y - high < 0 ? 0 : y - high;
  pen.fillStyle = ink;
  pen.fillRect(left, top, wide, high);
  pen.fillStyle = "#140303";
  pen.textBaseline = "middle";
  pen.fillText(label, left + size * 0.4, top + high / 2 + size * 0.05);
}

export const boxesOf = (record) =>
  record.findings.map((finding, index) => ({ box: finding.box, label: `${index + 1}  ${finding.score.toFixed(2)}` }));
