// A simulated schedule as SVG shapes, the same as course_lib/viz/schedule_layout.py writes, and what is at a point of them.

const [LEFT, RIGHT, TOP, BAR, ROW] = [62, 112, 24, 64, 20];
const LEGEND = { F: "forward", B: "backward", I: "backward, input only", W: "backward, weights only", "": "lower and paler: a rank's later stages" };
const tenths = (value) => Math.floor(value * 10 + 0.5);
const coordinate = (value) => String(Number(value.toFixed(2)));

// The next of 1, 2, 5, 10, 20, …
function nice(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= rough * 0.999);
}

export class Gantt {
  constructor(sim, width) {
    const { p, chunks, ranks, makespan } = sim;
    const pitch = p <= 4 ? 38 : p <= 8 ? 30 : 22;
    const lower = chunks === 1 ? 0 : pitch > 30 ? 8 : pitch > 22 ? 6 : 4;
    const unit = ranks.reduce((n, rank) => n + rank.length, 0) <= 2000 ? 10 : 4; // steps in a pixel
    Object.assign(this, { sim, width, pitch, lower, unit, box: pitch - 4 - lower, bottom: TOP + pitch * p });
    this.scale = (width - LEFT - RIGHT) / makespan;
    this.legend = this.legends();
    this.height = this.bottom + 6 + ROW * (1 + this.legend.at(-1)[2]);
  }

  x(time) {
    return LEFT + time * this.scale;
  }

  middle(rank, chunk) {
    const down = chunk ? (this.lower * chunk) / (this.sim.chunks - 1) : 0;
    return TOP + rank * this.pitch + tenths(down + this.box / 2) / 10;
  }

  get shapes() {
    const width = coordinate(this.width - LEFT - RIGHT);
    const lanes = this.sim.ranks.map(
      (_, rank) => `<rect x="${LEFT}" y="${TOP + rank * this.pitch}" width="${width}" height="${this.pitch - 4}" class="lane"/>`,
    );
    return [...lanes, this.axis(), this.boxes(), this.held(), this.drawnLegend()].join("");
  }

  // A path of thick strokes for each kind and chunk, then the labels that fit. Boxes too narrow for a gap run together.
  boxes() {
    const { unit: u, sim, scale } = this;
    const digits = String(sim.m - 1).length;
    const [paths, labels] = [{}, {}];
    sim.ranks.forEach((actions, rank) => {
      const pen = {};
      const middles = Array.from({ length: sim.chunks }, (_, chunk) => this.middle(rank, chunk));
      for (const { kind, chunk, microbatch, start, end } of actions) {
        const key = kind + chunk;
        const left = Math.floor((LEFT + start * scale) * u + 0.5);
        const wide = Math.floor((LEFT + end * scale) * u + 0.5) - left;
        const shown = Math.max(1, wide - (wide >= 4 * u ? u : wide >= 2 * u ? Math.floor(u / 2) : 0));
        const path = (paths[key] ??= []);
        if (pen[key] === left) path[path.length - 1] += shown;
        else path.push(key in pen ? `m${left - pen[key]} 0h` : `M${left} ${coordinate(middles[chunk])}h`, shown);
        pen[key] = left + shown;
        if (shown / u < 6.6 * digits + 2) continue;
        const label = `${shown / u >= 6.6 * digits + 9.6 ? kind : ""}${microbatch}`;
        const middle = tenths(left / u + shown / u / 2) / 10;
        labels[kind] = `${labels[kind] ?? ""}<text x="${middle}" y="${coordinate(middles[chunk] + 4)}">${label}</text>`;
      }
    });
    const strokes = Object.keys(paths).sort().map(
      (key) => `<path d="${paths[key].join("")}" class="${key[0]} k${Math.min(key.slice(1), 3)}" stroke-width="${this.box}"/>`,
    );
    const names = Object.keys(labels).sort().map((kind) => `<g class="mid on${kind}">${labels[kind]}</g>`);
    return `<g class="actions"><g transform="scale(${short(1 / u)} 1)" class="boxes">${strokes.join("")}</g>${names.join("")}</g>`;
  }

  axis() {
    const { makespan } = this.sim;
    const step = nice(makespan / Math.max(2, Math.floor((this.width - LEFT - RIGHT) / 75)));
    let parts = "";
    for (let k = 0; k <= Math.floor(makespan / step + 1e-9); k++) {
      const x = LEFT + tenths(k * step * this.scale) / 10;
      parts += `<path d="M${short(x)} ${TOP - 5}V${this.bottom - 4}" class="grid"/>`;
      const align = x > this.width - RIGHT - 20 ? "end" : "mid";
      parts += `<text x="${coordinate(x)}" y="${TOP - 9}" class="axis ${align}">${short(k * step)} s</text>`;
    }
    return parts;
  }

  get bars() { // x of the bars of what is held, and how many that can be
    return [this.width - RIGHT + 14, this.sim.m * this.sim.chunks];
  }

  held() {
    const [x, most] = this.bars;
    const lines = this.sim.peaks.map((peak, rank) => {
      const y = TOP + rank * this.pitch + (this.pitch - 4) / 2;
      const bar = (width, kind) => `<rect x="${coordinate(x)}" y="${y - 5}" width="${width}" height="10" class="${kind}"/>`;
      return (
        `<text x="${LEFT - 10}" y="${y + 4}" class="rank end">rank ${rank}</text>${bar(BAR, "lane")}` +
        `${bar(tenths((BAR * peak) / most) / 10, "peak")}<text x="${coordinate(x + BAR + 6)}" y="${y + 4}" class="holds">${peak}</text>`
      );
    });
    return `<text x="${coordinate(x)}" y="${TOP - 9}" class="axis">holds, of ${most}</text>${lines.join("")}`;
  }

  // [kind or "", x, row], in as many rows as that takes.
  legends() {
    const kinds = new Set(this.sim.ranks.flatMap((rank) => rank.map(({ kind }) => kind)));
    if (this.sim.chunks > 1) kinds.add("");
    let [x, row] = [LEFT, 0];
    return Object.keys(LEGEND).filter((kind) => kinds.has(kind)).map((kind) => {
      const wide = (kind ? 40 : 0) + 6 * LEGEND[kind].length;
      if (x + wide > this.width && x > LEFT) [x, row] = [LEFT, row + 1];
      x += wide;
      return [kind, x - wide, row];
    });
  }

  drawnLegend() {
    return this.legend.map(([kind, x, row]) => {
      const y = this.bottom + 16 + ROW * row;
      const name = `<text x="${kind ? x + 24 : x}" y="${y}" class="axis">${LEGEND[kind]}</text>`;
      if (!kind) return name;
      const box = `<path d="M${x} ${y - 4}h18" class="${kind} k0" stroke-width="14"/>`;
      return `${box}<g class="mid on${kind}"><text x="${x + 9}" y="${y}">${kind}</text></g>${name}`;
    }).join("");
  }

  // The action, or the rank and time of a gap, at a point; null beside the lanes.
  at(px, py) {
    const rank = Math.floor((py - TOP) / this.pitch);
    const time = (px - LEFT) / this.scale;
    if (!this.sim.ranks[rank] || time < 0 || time > this.sim.makespan) return null;
    const slack = 2 / this.scale;
    const near = this.sim.ranks[rank].filter(({ start, end }) => start - slack <= time && time < end + slack);
    const action = near.find(({ start, end }) => start <= time && time < end);
    const gap = near.every(({ start, end }) => end - start > 2 * slack); // a narrow box is easier to point at
    return action ?? (gap || !near.length ? { rank, time } : near[0]);
  }

  // What is laid over the picture for an action: the action, what it needs, and the one before it on its rank.
  marks(action) {
    const box = ({ rank, chunk, start, end, kind, microbatch }, role) => {
      const [x, y, wide] = [this.x(start), this.middle(rank, chunk), Math.max(2, (end - start) * this.scale)];
      const name = [`${kind}${microbatch}`, `${microbatch}`].find((text) => wide >= 6.6 * text.length + 2) ?? "";
      const label = `<g class="mid on${kind}"><text x="${x + wide / 2}" y="${y + 4}">${name}</text></g>`;
      const place = `x="${x}" y="${y - this.box / 2}" width="${wide}" height="${this.box}"`;
      return `<path d="M${x} ${y}h${wide}" class="${kind} k${Math.min(chunk, 3)}" stroke-width="${this.box}"/>${label}<rect ${place} class="mark ${role}"/>`;
    };
    const before = this.sim.ranks[action.rank][action.at - 1];
    const others = action.needs.filter((need) => need !== before);
    const wires = others.filter(({ rank }) => rank !== action.rank).map((need) => {
      const [x, y] = [this.x(need.end), this.middle(need.rank, need.chunk)];
      return `<path d="M${x} ${y}L${this.x(action.start)} ${this.middle(action.rank, action.chunk)}" class="wire"/>`;
    });
    const boxes = [...(before ? [box(before, "previous")] : []), ...others.map((need) => box(need, "need")), box(action, "here")];
    return boxes.join("") + wires.join("");
  }
}
