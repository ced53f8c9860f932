// The shapes inside the frame of a roofline, from the same numbers the same as in roofline_picture.py and roofline_marks.py.

const [LETTER, BOLD, LINE] = [7, 7.8, 15]; // the width of a letter and the height of a line of names, amply
const ROWS = 14; // so many lines away from its mark a name may stand
const within = (share) => Math.min(1, Math.max(0, share));
const two = (value) => Math.round(value * 100) / 100;
const at = (...places) => places.map(([x, y]) => `${two(x)},${two(y)}`).join(" ");
const poly = (tag, kind, ...places) => [tag, { class: kind, points: at(...places) }, ""];

// The axes: from intensities and rates to places.
class Axes {
  constructor(plot) {
    Object.assign(this, plot);
  }

  x(intensity) {
    const share = (Math.log10(intensity) - this.x_low) / (this.x_high - this.x_low);
    return this.left + (this.right - this.left) * within(share);
  }

  y(rate) {
    const share = (Math.log10(rate) - this.y_low) / (this.y_high - this.y_low);
    return this.bottom - (this.bottom - this.top) * within(share);
  }

  roofY(roof, x) {
    const share = (x - this.left) / (this.right - this.left);
    return this.y(attainable(roof, 10 ** (this.x_low + share * (this.x_high - this.x_low))));
  }
}

// Everything in the frame as [tag, attributes, text], from back to front.
export function shapes(scene, plot) {
  const axes = new Axes(plot);
  const { left, right, bottom } = axes;
  const { roof, beside } = scene;
  const [edge, top] = [axes.x(ridge(roof)), axes.y(roof.flops_per_s)];
  const slope = [[left, axes.roofY(roof, left)], [edge, top]];
  const found = [
    poly("polygon", "roof-memory", ...slope, [edge, bottom], [left, bottom]),
    poly("polygon", "roof-arithmetic", [edge, top], [right, top], [right, bottom], [edge, bottom]),
  ];
  const labels = [];
  if (beside) {
    const [peak, { name, roof: other }] = [axes.y(beside.roof.flops_per_s), beside];
    const start = [left, axes.roofY(other, left)];
    found.push(poly("polyline", "roof-beside", start, [axes.x(ridge(other)), peak], [right, peak]));
    const below = Math.abs(peak - top) < 17 ? 24 : 0; // else it would be on the label of a roof as high
    const said = `${name}: ${amount(other.flops_per_s, "FLOP/s")}, ridge ${three(ridge(other))}`;
    labels.push(label(right - 6, peak - 7 + below, said, "roof-muted end"));
  }
  found.push(poly("polyline", "roof-ridge", [edge, top], [edge, bottom]));
  const x = axes.x(intensity(scene.op, scene.tokens));
  found.push(poly("polyline", "roof-drop", [x, axes.roofY(roof, x)], [x, bottom]));
  found.push(poly("polyline", "roof-line", ...slope, [right, top]));
  labels.push(
    label(right - 6, top - 7, `${scene.device}: ${amount(roof.flops_per_s, "FLOP/s")}`, "roof-name end"),
    label(edge, bottom - 8, `ridge ${three(ridge(roof))}`, "roof-name mid"),
    label(edge - 46, bottom - 8, "limited by memory", "roof-muted end"),
    label(edge + 46, bottom - 8, "limited by arithmetic", "roof-muted"),
  );
  const [written, blocked] = bandwidth(roof, axes);
  found.push(...operations(scene, axes, [...blocked, ...labels.map(([, box]) => box)]));
  return [...found, written, ...labels.map(([shape]) => shape)];
}

function label(x, y, content, kind) {
  const wide = (kind.startsWith("roof-name") ? BOLD : LETTER) * content.length;
  const start = x - (kind.endsWith("end") ? wide : kind.endsWith("mid") ? wide / 2 : 0);
  return [["text", { class: kind, x, y }, content], [start, y - 11, start + wide, y + 4]];
}

// The memory's bandwidth, written along the slope that it makes.
function bandwidth(roof, axes) {
  const across = (axes.right - axes.left) / (axes.x_high - axes.x_low);
  const up = (axes.bottom - axes.top) / (axes.y_high - axes.y_low);
  const x = (axes.x(2.5) + axes.x(ridge(roof))) / 2;
  const said = amount(roof.bytes_per_s, "B/s");
  const long = Math.hypot(across, up);
  const [cos, sin] = [two(across / long), two(up / long)];
  const half = (BOLD * said.length) / 2;
  const boxes = [x - half, x].map((start) => [
    start, axes.roofY(roof, start + half) - 18, start + half, axes.roofY(roof, start) - 4,
  ]);
  const transform = `matrix(${cos} ${-sin} ${sin} ${cos} ${at([x, axes.roofY(roof, x)])})`;
  return [["text", { class: "roof-name mid", transform, y: -8 }, said], boxes];
}

// A mark on the roof for each operation, and its name where there is room: the chosen one's above, the others' below.
function operations({ op: chosen, others, roof, tokens }, axes, blocked) {
  const marks = [chosen, ...others.filter((other) => other.name !== chosen.name)].map((op) => {
    const x = axes.x(intensity(op, tokens));
    return [op, x, axes.roofY(roof, x)];
  });
  blocked.push(...marks.map(([, x, y]) => [x - 6, y - 6, x + 6, y + 6]));
  const [[, x, y], ...rest] = marks;
  const drop = [x - 2, y, x + 2, axes.bottom]; // the line to the axis
  const [lines, dots, names] = [[], [], []];
  for (const [op, x, y] of [marks[0], ...rest.sort((a, b) => b[1] - a[1])]) {
    const first = op === chosen;
    const kind = first ? "roof-chosen" : "roof-other";
    const [box, far] = free(x, y, (first ? 1.05 * BOLD : LETTER) * op.name.length, first, blocked, drop, axes, roof);
    blocked.push(box);
    const ends = box[0] < x;
    names.push(["text", { class: ends ? `${kind} end` : kind, x: ends ? box[2] : box[0], y: box[3] - 4 }, op.name]);
    if (far) lines.push(poly("polyline", "roof-leader", [x, y], [ends ? box[2] + 3 : box[0] - 3, box[3] - 8]));
    dots.push(mark(limit(op, roof, tokens), x, y, first ? 6.5 : 4, kind, op.name));
  }
  return [...lines, ...dots.reverse(), ...names];
}

// A disc where memory is the limit, a square where arithmetic is.
function mark(by, x, y, size, kind, name) {
  const common = { class: `${kind} by-${by}`, "data-operation": name };
  if (by === "memory") return ["circle", { ...common, cx: x, cy: y, r: size }, ""];
  const side = 1.8 * size;
  return ["rect", { ...common, x: x - side / 2, y: y - side / 2, width: side, height: side }, ""];
}

const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

// The nearest free place for a name, if possible beside `drop`, and whether a line must lead there.
function free(x, y, wide, above, blocked, drop, axes, roof) {
  for (const [over, taken] of [[above, [...blocked, drop]], [above, blocked], [!above, blocked]]) {
    for (const left of over ? [x - 10 - wide, x + 10] : [x + 10, x - 10 - wide]) {
      for (let row = 0; row < ROWS; row++) {
        const bottom = over ? y - 6 - LINE * row : y + 20 + LINE * row;
        const box = [left, bottom - LINE, left + wide, bottom];
        const inside = left > axes.left && box[2] < axes.right && box[1] > axes.top && bottom < axes.bottom;
        // the roof rises to the right: a box under it meets it on the left, one over it on the right
        const edge = axes.roofY(roof, over ? box[2] : left);
        const clear = over ? bottom < edge - 2 : box[1] > edge + 2;
        if (inside && clear && !taken.some((other) => meet(box, other))) return [box, row > 0];
      }
    }
  }
  return [[x + 10, y - LINE / 2, x + 10 + wide, y + LINE / 2], false];
}
