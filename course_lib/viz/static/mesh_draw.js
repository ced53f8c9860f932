// The map of a mesh in the page: the same shapes as viz/mesh_picture.py draws, and which rank is where.

const [LEFT, TALL, LARGEST, ROOMY] = [64, 470, 56, 26];
const short = (value) => String(Number(value.toFixed(2)));
const label = (x, y, words, kind) => `<text x="${short(x)}" y="${short(y)}" class="${kind}">${words}</text>`;

export class Map2D {
  constructor(state, width) {
    const k = state.ranks_per_node;
    Object.assign(this, { state, width, k, n: worldSize(state), nodes: numNodes(state) });
    const root = Math.ceil(Math.sqrt(k));
    let found = root;
    while (k % found) found++;
    this.wide = found <= 8 || found < k ? found : root;
    this.tall = Math.ceil(k / this.wide);
    this.named = this.nodes <= 32;
    this.left = this.named ? 0 : LEFT;
    this.gap = this.n > 256 ? 4 : 12;
    this.between = this.named ? 26 : this.gap;
    [this.columns, this.size] = this.grid();
    this.inner = this.size - (this.size >= ROOMY ? 2 : 1);
    this.pitch = this.size * this.tall + this.between;
    this.height = Math.ceil(this.nodes / this.columns) * this.pitch;
  }

  grid() {
    const outer = orderOf(this.state).find((axis) => this.state[axis] > 1);
    const block = Math.floor((outer ? stride(this.state, outer) : 1) / this.k) || 1;
    let [best, chosen] = [-1, [this.nodes, 4]];
    for (let columns = 1; columns <= this.nodes; columns++) {
      const room = Math.floor((this.width - this.left) / columns) - this.gap;
      const size = Math.min(LARGEST, Math.floor(room / this.wide));
      const rows = Math.ceil(this.nodes / columns);
      if (size < 4 || (rows * (size * this.tall + this.between) > TALL && columns < this.nodes)) continue;
      const score = size * (columns % block === 0 || block % columns === 0 ? 1.25 : 1);
      if (score >= best) [best, chosen] = [score, [columns, size]];
    }
    return chosen;
  }

  corner(rank) {
    const [node, cell] = [Math.floor(rank / this.k), rank % this.k];
    const x = this.left + (node % this.columns) * (this.size * this.wide + this.gap) + (cell % this.wide) * this.size;
    const y = Math.floor(node / this.columns) * this.pitch + Math.floor(cell / this.wide) * this.size;
    return [x, y + (this.named ? 18 : 0)];
  }

  // The rank whose cell is there, or null.
  at(x, y) {
    const across = this.size * this.wide + this.gap;
    const [column, row] = [Math.floor((x - this.left) / across), Math.floor(y / this.pitch)];
    if (column < 0 || column >= this.columns || row < 0) return null;
    const i = Math.floor((x - this.left - column * across) / this.size);
    const j = Math.floor((y - row * this.pitch - (this.named ? 18 : 0)) / this.size);
    if (i >= this.wide || j < 0 || j >= this.tall || j * this.wide + i >= this.k) return null;
    const rank = (row * this.columns + column) * this.k + j * this.wide + i;
    return rank < this.n ? rank : null;
  }

  get cells() {
    const { columns, size, inner, k, wide } = this;
    const parts = [];
    for (let node = 0; node < this.nodes; node += columns) {
      const y = this.corner(node * k)[1];
      if (!this.named) parts.push(label(LEFT - 8, y + (size * this.tall) / 2 + 4, `node ${node}`, "axis end"));
      for (let row = 0; row < this.tall; row++) {
        const beside = Math.min(wide, k - row * wide);
        const dashes = Array.from({ length: beside }, () => [inner, size - inner]).flat();
        dashes[dashes.length - 1] += size * (wide - beside) + this.gap;
        const last = Math.min(this.n, (node + columns) * k) - 1;
        const first = node * k + row * wide;
        if (first > last) continue;
        const start = first + Math.floor((last - first) / k) * k; // of the last node that has such a row
        const end = Math.min(last, start + beside - 1);
        const d = `M${this.left} ${short(y + row * size + inner / 2)}H${this.corner(end)[0] + inner}`;
        parts.push(`<path d="${d}" stroke-width="${inner}" stroke-dasharray="${dashes.join(" ")}" class="ranks"/>`);
      }
    }
    for (let node = 0; this.named && node < this.nodes; node++) {
      const [x, y] = this.corner(node * k);
      parts.push(label(x, y - 5, size * wide >= 42 ? `node ${node}` : node, "axis"));
    }
    return parts.join("");
  }

  marks(rank) {
    const { size, inner, state } = this;
    const parts = [];
    const roomy = size >= ROOMY ? " roomy" : "";
    const names = {};
    for (const axis of SHOWN) {
      const others = group(state, rank, axis).filter((other) => other !== rank);
      for (const other of others) names[other] ??= axis;
      const path = others.map((other) => shape(axis, ...this.corner(other), inner)).join("");
      if (path) parts.push(`<path d="${path}" class="mark ${axis}${roomy}"/>`);
    }
    const [x, y] = this.corner(rank);
    parts.push(`<rect x="${x - 2}" y="${y - 2}" width="${inner + 4}" height="${inner + 4}" class="chosen"/>`);
    for (let other = 0; roomy && other < this.n; other++) {
      const [left, top] = this.corner(other);
      const [middle, name] = [left + inner / 2, names[other]];
      parts.push(label(middle, top + inner / 2 + (name ? 0 : 4), other, "rank mid"));
      if (name) parts.push(label(middle, top + inner / 2 + 12, name, "axis mid"));
    }
    return parts.join("");
  }
}

// tp a square, dp a disc, pp a diamond, cp a cross.
export function shape(axis, x, y, side) {
  const [h, third] = [side / 2, side / 3];
  const path = (start, ways, lengths) => `${start}${[...ways].map((way, i) => way + short(lengths[i])).join("")}z`;
  if (axis === "tp") return path(`M${x} ${y}`, "hvh", [side, side, -side]);
  if (axis === "dp") return `M${x} ${short(y + h)}${["", "-"].map((way) => `a${short(h)} ${short(h)} 0 1 1 ${way}${short(side)} 0`).join("")}z`;
  if (axis === "pp") {
    const leg = short(h + 1);
    return `M${short(x + h)} ${y - 1}l${leg} ${leg}l-${leg} ${leg}l-${leg} -${leg}z`;
  }
  const signs = [1, 1, 1, 1, -1, 1, -1, -1, -1, -1, 1];
  return path(`M${short(x + third)} ${y}`, "hvhvhvhvhvh", signs.map((sign) => sign * third));
}
