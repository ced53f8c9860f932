// The timeline in the page: a canvas that draws what is in view, however many events there are.
// Python sends the events as columns; how a rank's time is cut up is the same as Trace.segments.

const { format } = new Intl.NumberFormat("en-US");
const [SPAN, COMPUTE, FLIGHT, WAIT] = [2, 0, 1, 2];
const MANY = 1500; // things in view; more are not drawn one by one

const inTurn = (pieces) => {
  const taken = [];
  let at = -Infinity;
  for (const [start, stop, i] of pieces.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (stop > Math.max(start, at)) {
      taken.push([Math.max(start, at), stop, i]);
      at = stop;
    }
  }
  return taken;
};

function without(pieces, holes) {
  const left = [];
  let first = 0;
  for (const [start, stop, i] of pieces) {
    while (first < holes.length && holes[first][1] <= start) first++;
    let at = start;
    for (let h = first; h < holes.length && holes[h][0] < stop; h++) {
      if (holes[h][0] > at) left.push([at, holes[h][0], i]);
      at = Math.max(at, holes[h][1]);
    }
    if (stop > at) left.push([at, stop, i]);
  }
  return left;
}

const FIELDS = ["kind", "operation", "peer", "group", "ranks", "nbytes", "shape", "detail", "async_op", "line", "source", "labels", "color"];

// The columns as one lane a rank; times in ticks from the first event.
export function lanes(data) {
  const calls = data.calls.map((row) => Object.fromEntries(FIELDS.map((name, k) => [name, row[k]])));
  const extra = new Map();
  for (const [i, from, length] of data.more) extra.set(i, [...(extra.get(i) ?? []), [from, length]]);
  let [i, s] = [0, 0];
  return data.counts.map((count, r) => {
    const [events, spans, waits, flights] = [[], [], [], []];
    for (let at = 0, k = 0; k < count; k++, i++) {
      const start = (at += data.start[i]);
      const call = calls[data.call[i]];
      const event = { i, call, start, stop: start + data.length[i], waits: [] };
      if (data.wait[i]) event.waits.push([start + data.from[i], start + data.from[i] + data.wait[i]]);
      for (const [from, length] of extra.get(i) ?? []) event.waits.push([start + from, start + from + length]);
      events.push(event);
      if (call.kind === SPAN) {
        const [depth, next] = [data.row[s], spans.length + 1 < data.spans[r] ? data.row[s + 1] : 0];
        event.row = Math.min(depth, Math.max(0, data.geometry.rows - 1));
        event.leaf = next <= depth; // holds no other span
        s++;
        spans.push(event);
        continue;
      }
      for (const wait of event.waits) waits.push([...wait, k]);
      flights.push([start, event.stop, k]);
    }
    const still = inTurn(waits);
    const busy = [...still.map((w) => [...w, WAIT]), ...without(inTurn(flights), still).map((f) => [...f, FLIGHT])];
    const segments = [];
    let at = 0;
    for (const segment of busy.sort((a, b) => a[0] - b[0])) {
      if (segment[0] > at) segments.push([at, segment[0], -1, COMPUTE]);
      segments.push(segment);
      at = segment[1];
    }
    if (data.ticks > at) segments.push([at, data.ticks, -1, COMPUTE]);
    return { events, spans, ...indexed(segments, spans) };
  });
}

// Typed arrays for the drawing: where each segment stops, how much wait and flight there was until then, and of each
// colour how much of the innermost spans.
function indexed(segments, spans) {
  const [stops, waited, flown] = [0, 0, 0].map(() => new Float64Array(segments.length + 1));
  segments.forEach(([start, stop, , what], k) => { // a segment begins where the one before it stops
    stops[k + 1] = stop;
    waited[k + 1] = waited[k] + (what === WAIT ? stop - start : 0);
    flown[k + 1] = flown[k] + (what === FLIGHT ? stop - start : 0);
  });
  let last = 0;
  const reach = Float64Array.from(spans, (span) => (last = Math.max(last, span.stop)));
  const leaves = spans.filter((span) => span.leaf);
  const used = [...new Set(leaves.map((span) => span.call.color))];
  const [begins, ends] = ["start", "stop"].map((name) => Float64Array.of(-Infinity, ...leaves.map((span) => span[name])));
  const named = used.map((color) => {
    const sums = new Float64Array(leaves.length + 1);
    leaves.forEach((span, k) => (sums[k + 1] = sums[k] + (span.call.color === color ? span.stop - span.start : 0)));
    return { color, sums };
  });
  return { segments, stops, waited, flown, reach, begins, ends, named };
}

// The first index whose value is more than `value`.
function after(sorted, value, low = 0, high = sorted.length) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

// The event of another rank that is most like this one: of its name if there is one, and close in time.
function nearest(events, { start, call }) {
  const far = (e) => Math.abs(e.start - start) + (e.call.operation === call.operation ? 0 : 1e12);
  return events.reduce((best, e, k) => (far(e) < far(events[best]) ? k : best), 0);
}

const rankText = (ranks) =>
  ranks.length > 2 && ranks.at(-1) - ranks[0] === ranks.length - 1 ? `${ranks[0]}–${ranks.at(-1)}` : ranks.join(", ");

export class Timeline {
  constructor(data, canvas) {
    Object.assign(this, { data, canvas, lanes: lanes(data), selected: null, colors: {} });
    this.fit();
  }

  fit() {
    this.view = [-0.01 * this.data.ticks, 1.01 * this.data.ticks];
  }

  get plot() { // left edge and width of the part with the lanes, in CSS pixels
    const { left } = this.data.geometry;
    return [left, Math.max(50, this.canvas.clientWidth - left - 12)];
  }

  x(tick) {
    const [left, width] = this.plot;
    return left + ((tick - this.view[0]) / (this.view[1] - this.view[0])) * width;
  }

  tickAt(x) {
    const [left, width] = this.plot;
    return this.view[0] + ((x - left) / width) * (this.view[1] - this.view[0]);
  }

  zoom(factor, around = (this.view[0] + this.view[1]) / 2) {
    const [a, b] = this.view;
    const length = Math.min(1.02 * this.data.ticks, Math.max(20, (b - a) * factor));
    const share = (around - a) / (b - a);
    this.show(around - share * length, length);
  }

  pan(share) {
    const length = this.view[1] - this.view[0];
    this.show(this.view[0] + share * length, length);
  }

  show(start, length) { // keeps the view on the trace
    const [low, high] = [-0.01 * this.data.ticks, 1.01 * this.data.ticks];
    start = Math.min(Math.max(start, low), high - length);
    this.view = [start, start + length];
  }

  text(tick, length) { // a time, with as many decimals as tell two ticks of the axis apart
    const { tick_s, begin_s } = this.data;
    const [unit, name] = (this.data.ticks * tick_s) >= 2 ? [1, "s"] : (begin_s + this.data.ticks * tick_s) < 2e-3 ? [1e-6, "µs"] : [1e-3, "ms"];
    const step = (length ?? tick) * tick_s;
    const decimals = Math.min(7, Math.max(0, Math.ceil(-Math.log10(step / unit) + 0.001) + (length ? 0 : 2)));
    return `${((length ? begin_s : 0) / unit + (tick * tick_s) / unit).toFixed(decimals)} ${name}`;
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.data.geometry.height];
    this.canvas.style.height = `${height}px`;
    const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== pixels[0]) this.canvas.width = pixels[0];
    if (this.canvas.height !== pixels[1]) this.canvas.height = pixels[1];
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  theme() { // the page's colours; a canvas does not know CSS variables
    const probe = document.createElement("span");
    this.canvas.parentNode.append(probe);
    const names = ["shards-fg", "shards-muted", "shards-card", "shards-edge", "shards-focus", "trace-compute", "trace-wait", "trace-flight"];
    for (const name of [...names, ...Array.from({ length: 8 }, (_, i) => `shards-r${i}`)]) {
      probe.style.color = `var(--${name})`;
      this.colors[name.replace(/^\w+-/, "")] = getComputedStyle(probe).color;
    }
    probe.remove();
    const dot = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
    this.bits = {}; // the colours as pixels
    for (const [name, color] of Object.entries(this.colors)) {
      dot.fillStyle = color;
      dot.fillRect(0, 0, 1, 1);
      const [r, g, b] = dot.getImageData(0, 0, 1, 1).data;
      this.bits[name] = (alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }
    const tile = Object.assign(document.createElement("canvas"), { width: 12, height: 12 });
    const c = tile.getContext("2d");
    c.fillStyle = this.colors.card;
    c.fillRect(0, 0, 12, 12);
    Object.assign(c, { strokeStyle: this.colors.wait, lineWidth: 2.6 });
    for (const shift of [-12, 0, 12]) {
      c.beginPath();
      c.moveTo(shift - 2, 14);
      c.lineTo(shift + 14, -2);
      c.stroke();
    }
    this.hatch = this.canvas.getContext("2d").createPattern(tile, "repeat");
    this.hatch.setTransform(new DOMMatrix().scale(0.5));
  }

  draw() {
    if (!this.canvas.clientWidth) return; // not shown yet
    this.resize();
    if (!this.hatch) this.theme();
    const { context: c, colors, data } = this;
    const { geometry: g } = data;
    const [left, width] = this.plot;
    c.clearRect(0, 0, this.canvas.clientWidth, g.height);
    c.textBaseline = "middle";
    this.labels = [];
    this.axis(c, left, width, g);
    c.save();
    c.beginPath();
    c.rect(left, 0, width, g.height);
    c.clip();
    if (this.count() > MANY) this.pixels(c, left, width);
    else this.shapes(c, left, width);
    this.names(c);
    if (this.selected) this.mark(c, this.selected);
    c.restore();
  }

  count() { // of segments and spans in view
    const [a, b] = this.view;
    return this.lanes.reduce((n, lane) => {
      const segments = after(lane.stops, b) - after(lane.stops, a);
      return n + segments + after(lane.ends, b) - after(lane.ends, a);
    }, 0);
  }

  shapes(c, left, width) { // each thing by itself
    const { colors, data, data: { geometry: g } } = this;
    const [compute, flight, wait] = [new Path2D(), new Path2D(), new Path2D()];
    const [x0, x1] = [Math.max(left, this.x(0)), Math.min(left + width, this.x(data.ticks))];
    const strips = new Map();
    this.lanes.forEach((lane, r) => {
      const y = g.top + r * g.pitch;
      compute.rect(x0, y + g.strips, x1 - x0, g.body);
      this.body(lane, y + g.strips, flight, wait);
      if (g.rows) this.strip(lane, y, strips);
    });
    const fill = (path, style, alpha = 1) => {
      Object.assign(c, { fillStyle: style, globalAlpha: alpha });
      c.fill(path);
      c.globalAlpha = 1;
    };
    fill(compute, colors.compute, 0.3);
    fill(wait, this.hatch);
    Object.assign(c, { strokeStyle: colors.wait, lineWidth: 0.6 });
    if (this.lanes.length <= 16) c.stroke(wait);
    fill(flight, colors.flight);
    for (const [color, path] of strips) {
      fill(path, colors[color], 0.3);
      c.strokeStyle = colors[color];
      c.stroke(path);
    }
  }

  // Too many to tell apart: in each column of pixels the bar is as high as the share of waiting, of communication; above
  // it is the colour of the span that takes most of it.
  pixels(c, left, width) {
    const { data: { geometry: g, ticks }, bits } = this;
    const ratio = this.canvas.width / this.canvas.clientWidth;
    const px = (length) => Math.round(length * ratio);
    const [columns, rows] = [px(width), this.canvas.height];
    const sheet = (this.sheet ??= document.createElement("canvas"));
    if (sheet.width !== columns || sheet.height !== rows) {
      Object.assign(sheet, { width: columns, height: rows });
      this.image = new ImageData(columns, rows);
    }
    const out = new Uint32Array(this.image.data.buffer);
    out.fill(0);
    const [compute, ground, stripe, flight] = [bits.compute(77), bits.card(255), bits.wait(255), bits.flight(255)];
    const perColumn = (this.view[1] - this.view[0]) / columns;
    const [body, bar, strip] = [px(g.body), Math.max(1, px(g.flight)), px(Math.max(0, g.strips - 3))];
    const period = Math.max(3, px(2.5) * 2);
    this.lanes.forEach((lane, r) => {
      const [top, y] = [px(g.top + r * g.pitch), px(g.top + r * g.pitch + g.strips)];
      const { stops, waited, flown, ends, begins, named } = lane;
      const colors = named.map(({ color }) => bits[`r${color}`](150));
      const before = new Float64Array(colors.length);
      let [k, s, waitBefore, flightBefore] = [after(stops, this.view[0]), after(ends, this.view[0]), 0, 0];
      for (let column = -1; column < columns; column++) {
        const tick = this.view[0] + (column + 1) * perColumn;
        while (k < stops.length && stops[k] <= tick) k++;
        const [i, j] = [Math.max(0, k - 1), Math.min(k, stops.length - 1)];
        const part = i < j ? (tick - stops[i]) / (stops[j] - stops[i]) : 0;
        const [waits, flights] = [waited[i] + part * (waited[j] - waited[i]), flown[i] + part * (flown[j] - flown[i])];
        const [waitShare, flightShare] = [(waits - waitBefore) / perColumn, (flights - flightBefore) / perColumn];
        [waitBefore, flightBefore] = [waits, flights];
        while (s < ends.length && ends[s] <= tick) s++;
        const inside = s < ends.length ? Math.max(0, (tick - begins[s]) / (ends[s] - begins[s])) : 0;
        let [most, color] = [0.1 * perColumn, 0];
        for (let n = 0; n < colors.length; n++) {
          const { sums } = named[n];
          const now = sums[s - 1] + (inside && inside * (sums[s] - sums[s - 1]));
          if (now - before[n] > most) [most, color] = [now - before[n], colors[n]];
          before[n] = now;
        }
        if (column < 0 || tick < 0 || tick - perColumn > ticks) continue;
        const [high, low] = [Math.round(waitShare * body), Math.round(flightShare * bar)];
        let at = y * columns + column;
        for (let row = 0; row < body; row++, at += columns) {
          out[at] = row < low ? flight : body - row <= high ? ((column + y + row) % period < period / 2 ? stripe : ground) : compute;
        }
        at = top * columns + column;
        for (let row = 0; color && row < strip; row++, at += columns) out[at] = color;
      }
    });
    sheet.getContext("2d").putImageData(this.image, 0, 0);
    c.drawImage(sheet, left, 0, width, rows / ratio);
  }

  axis(c, left, width, g) {
    const { data, colors } = this;
    const length = this.view[1] - this.view[0];
    const rough = (length * data.tick_s) / (width / 110);
    const step = [1, 2, 5, 10].map((m) => m * 10 ** Math.floor(Math.log10(rough))).find((s) => s >= rough);
    c.font = "11px system-ui, sans-serif";
    c.textAlign = "center";
    c.strokeStyle = colors.edge;
    c.lineWidth = 1;
    c.beginPath();
    const from = data.begin_s + this.view[0] * data.tick_s;
    for (let k = Math.ceil(from / step); ; k++) {
      const tick = (k * step - data.begin_s) / data.tick_s;
      const x = this.x(tick);
      if (x > left + width) break;
      c.fillStyle = colors.muted;
      if (x >= left) c.fillText(this.text(tick, step / data.tick_s), Math.min(x, left + width - 22), g.top - 14);
      c.moveTo(Math.round(x) + 0.5, g.top - 6);
      c.lineTo(Math.round(x) + 0.5, g.height);
    }
    c.stroke();
    c.textAlign = "right";
    c.fillStyle = colors.fg;
    c.font = `${g.pitch < 16 ? 9.5 : 12}px system-ui, sans-serif`;
    if (g.pitch < 16) c.fillText("rank", left - 28, g.top - 14);
    this.lanes.forEach((_, r) => {
      const y = g.top + r * g.pitch + g.strips + g.body / 2;
      c.fillText(g.pitch < 16 ? `${r}` : `rank ${r}`, left - 8, y);
    });
  }

  body(lane, y, flight, wait) {
    const { geometry: g } = this.data;
    const [left, width] = this.plot;
    const [from, to] = [after(lane.stops, this.view[0], 1) - 1, after(lane.stops, this.view[1])];
    for (const [start, stop, event, what] of lane.segments.slice(Math.max(0, from), to)) {
      if (what === COMPUTE) continue;
      const x = Math.max(left - 5, this.x(start));
      const w = Math.max(0.8, Math.min(left + width + 5, this.x(stop)) - x);
      const isWait = what === WAIT;
      if (isWait) wait.rect(x, y, w, g.body);
      else flight.rect(x, y, w, g.flight);
      const room = isWait ? [y, w, g.body] : [y + g.flight - 1, w, g.body - g.flight];
      if (w > 24 && g.body >= 12) this.labels.push([lane.events[event], x, ...room]);
    }
  }

  strip(lane, y, strips) {
    const { geometry: g } = this.data;
    const [a, b] = this.view;
    for (let k = after(lane.reach, a); k < lane.spans.length && lane.spans[k].start < b; k++) {
      const span = lane.spans[k];
      if (span.stop < a || (span.row === g.rows - 1 && !span.leaf)) continue; // the last row is for the innermost
      const [x, end] = [Math.max(-50, this.x(span.start)), Math.min(this.canvas.clientWidth + 50, this.x(span.stop))];
      const w = Math.max(0.8, end - x - 0.8);
      const color = `r${span.call.color}`;
      if (!strips.has(color)) strips.set(color, new Path2D());
      strips.get(color).rect(x, y + span.row * g.row, w, g.row - 1.5);
      if (w > 20 && g.row >= 10) this.labels.push([span, x, y + span.row * g.row, w, g.row - 1.5]);
    }
  }

  names(c) { // each where there is room for it
    c.textAlign = "center";
    c.lineJoin = "round";
    for (const [event, x, y, w, h] of this.labels.slice(0, 400)) {
      const size = Math.min(11, h);
      const [from, to] = [Math.max(x, this.plot[0]), Math.min(x + w, this.plot[0] + this.plot[1])];
      c.font = `${size}px system-ui, sans-serif`;
      const { operation, labels } = event.call;
      const values = labels.replaceAll(/(^|, )\S+ /g, "$1"); // forward, microbatch 3: as much of it as there is room for
      const text = [...(labels && operation !== labels.split(" ")[0] ? [`${operation}, ${labels}`] : []), `${operation} ${values}`, operation]
        .find((name) => c.measureText(name).width < to - from - 4);
      if (!text) continue;
      const at = [(from + to) / 2, y + h / 2 + 0.5];
      if (event.call.kind !== SPAN) {
        Object.assign(c, { strokeStyle: this.colors.card, lineWidth: 3.5 });
        c.strokeText(text, ...at);
      }
      c.fillStyle = this.colors.fg;
      c.fillText(text, ...at);
    }
  }

  mark(c, { lane, event }) {
    const { geometry: g } = this.data;
    const y = g.top + lane * g.pitch;
    const isSpan = event.call.kind === SPAN;
    const box = (start, stop, top, height, line) => {
      const x = this.x(start);
      Object.assign(c, { strokeStyle: this.colors.fg, lineWidth: line });
      c.strokeRect(x, top, Math.max(2, this.x(stop) - x), height);
    };
    if (isSpan) return box(event.start, event.stop, y + event.row * g.row, g.row - 1.5, 2);
    box(event.start, event.stop, y + g.strips - 1, g.body + 2, 2);
    c.setLineDash([3, 2]);
    for (const wait of event.waits) box(...wait, y + g.strips + 1.5, g.body - 3, 1.5);
    c.setLineDash([]);
  }

  // What is at a point: an event, or a stretch of compute.
  at(px, py) {
    const { geometry: g } = this.data;
    const r = Math.floor((py - g.top) / g.pitch);
    const lane = this.lanes[r];
    if (!lane || px < this.plot[0]) return null;
    const y = py - g.top - r * g.pitch;
    const tick = this.tickAt(px);
    const slack = this.tickAt(px + 2) - tick;
    if (y < g.strips) {
      const row = Math.floor(y / g.row);
      const hits = lane.spans.filter((s) => s.start <= tick + slack && s.stop >= tick - slack && (s.row === row && (s.leaf || row < g.rows - 1)));
      return hits.length ? { lane: r, event: hits.at(-1) } : null;
    }
    const k = after(lane.stops, tick, 1) - 1;
    const near = [k, k - 1, k + 1].map((j) => lane.segments[j]).filter((s) => s && s[0] <= tick + slack && s[1] >= tick - slack);
    const busy = near.find((s) => s[3] !== COMPUTE);
    if (busy) return { lane: r, event: lane.events[busy[2]], others: this.flying(lane, tick, busy) };
    return near[0] ? { lane: r, segment: near[0] } : null;
  }

  flying(lane, tick, [, , mine]) { // how many others are in flight at the same time
    return lane.events.reduce((n, e, k) => n + (k !== mine && e.call.kind !== SPAN && e.start <= tick && tick < e.stop), 0);
  }

  describe({ lane, event, segment, others }) {
    if (segment) {
      return `rank ${lane} · compute or other Python · ${this.text(segment[0], (segment[1] - segment[0]) / 100)} + ${this.text(segment[1] - segment[0])}`;
    }
    const { call } = event;
    const length = event.stop - event.start;
    const parts = [`rank ${lane}`, call.operation + (call.peer ? ` ${call.peer}` : "") + (call.async_op ? " (asynchronous)" : "")];
    if (call.labels) parts.push(call.labels);
    if (call.group) parts.push(`${call.group} (ranks ${rankText(call.ranks)})`);
    if (call.kind !== SPAN) parts.push(`${format(call.nbytes)} bytes`);
    parts.push(...[call.shape, call.detail].filter(Boolean));
    parts.push(`${this.text(event.start, length / 100 || 1)} + ${this.text(length)}`);
    if (this.open.has(event.i)) parts.push("never complete");
    if (call.kind !== SPAN) {
      const waited = event.waits.reduce((sum, [a, b]) => sum + b - a, 0);
      parts.push(waited ? `its thread waited ${this.text(waited)}` : "no wait");
    }
    if (others) parts.push(`${others} more in flight`);
    if (call.line) parts.push(`${call.line}: ${call.source}`);
    return parts.join(" · ");
  }

  get open() {
    return (this.never ??= new Set(this.data.open));
  }

  // The next event of the rank (by 1 or −1), or the nearest one of another rank.
  step(by, across = 0) {
    const { lane = 0, event } = this.selected ?? {};
    const row = event ? lane + across : 0;
    const events = this.lanes[row]?.events;
    if (!events?.length) return;
    let k = 0;
    if (event && !across) k = Math.min(events.length - 1, Math.max(0, events.indexOf(event) + by));
    else if (event) k = nearest(events, event);
    else k = Math.max(0, events.findIndex((e) => e.stop >= this.view[0]));
    this.select(row, events[k]);
  }

  select(lane, event) {
    this.selected = { lane, event };
    const [a, b] = this.view;
    const length = b - a;
    if (event.stop < a + 0.02 * length || event.start > b - 0.02 * length) this.show(event.start - length / 3, length);
  }
}

const HINT = "Point at an event, or press N for the next one. + and − zoom, arrows pan or change rank, 0 shows all.";
const BUTTONS = [
  ["−", "zoom out (−)", "-"], ["+", "zoom in (+)", "+"], ["fit", "show all (0)", "0"],
  ["◀", "pan left (←)", "ArrowLeft"], ["▶", "pan right (→)", "ArrowRight"],
  ["previous", "previous event (P)", "p"], ["next", "next event (N)", "n"],
];
const KEYS = {
  "+": (t) => t.zoom(0.6), "=": (t) => t.zoom(0.6), "-": (t) => t.zoom(1 / 0.6), 0: (t) => t.fit(),
  ArrowLeft: (t) => t.pan(-0.2), ArrowRight: (t) => t.pan(0.2),
  ArrowUp: (t) => t.step(0, -1), ArrowDown: (t) => t.step(0, 1), n: (t) => t.step(1), p: (t) => t.step(-1),
  Home: (t) => t.select(t.selected?.lane ?? 0, t.lanes[t.selected?.lane ?? 0].events[0]),
  End: (t) => t.select(t.selected?.lane ?? 0, t.lanes[t.selected?.lane ?? 0].events.at(-1)),
};

function render({ model, el }) {
  const data = model.get("data");
  el.classList.add("shards-widget", "trace-widget");
  el.innerHTML = `<div class="shards"><h4></h4><p></p><div class="controls"><span></span><span></span><span></span></div>
    <div class="picture" tabindex="0" role="application" data-lm-suppress-shortcuts="true"><canvas></canvas></div>
    <div class="legend"><span><i class="compute"></i>compute or other Python</span>
    <span><i class="flight"></i>communication in flight, the thread works</span>
    <span><i class="wait"></i>the thread waits</span></div><div class="details" aria-live="polite"></div></div>`;
  const [head, notes, controls, picture, legend, details] = el.firstElementChild.children;
  head.textContent = data.title;
  notes.textContent = data.notes.join(" ");
  if (data.geometry.rows) legend.append(Object.assign(document.createElement("span"), { innerHTML: '<i class="span"></i>a span, by its name' }));
  picture.setAttribute("aria-label", `${data.title}. ${data.notes.join(" ")} ${HINT}`);
  const timeline = new Timeline(data, picture.firstElementChild);
  el.timeline = timeline; // for tests and for the curious
  let frame = 0;
  const say = (found) => (details.textContent = found ? timeline.describe(found) : HINT);
  const redraw = () => {
    if (!frame) frame = requestAnimationFrame(() => ((frame = 0), timeline.draw()));
  };
  const act = (key) => {
    const before = timeline.selected;
    KEYS[key](timeline);
    if (timeline.selected !== before) say(timeline.selected);
    redraw();
  };
  BUTTONS.forEach(([label, title, key], i) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label, title });
    button.setAttribute("aria-label", title);
    button.setAttribute("data-lm-suppress-shortcuts", "true");
    button.addEventListener("click", () => act(key));
    controls.children[i < 3 ? 0 : i < 5 ? 1 : 2].append(button);
  });
  picture.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    act(key);
  });
  const place = (event) => {
    const box = timeline.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  picture.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    timeline.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 200), timeline.tickAt(place(event)[0]));
    redraw();
  }, { passive: false });
  let drag = null;
  picture.addEventListener("pointerdown", (event) => {
    drag = { x: place(event)[0], view: timeline.view, moved: false };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (drag) {
      drag.moved ||= Math.abs(x - drag.x) > 3;
      const [a, b] = drag.view;
      timeline.show(a - ((x - drag.x) / timeline.plot[1]) * (b - a), b - a);
    } else {
      const found = timeline.at(x, y);
      timeline.selected = found?.event ? found : null;
      say(found);
    }
    redraw();
  });
  picture.addEventListener("pointerup", () => (drag = null));
  picture.addEventListener("pointercancel", () => (drag = null));
  picture.addEventListener("pointerleave", () => {
    if (drag || document.activeElement === picture) return;
    timeline.selected = null;
    say(null);
    redraw();
  });
  const recolor = () => {
    timeline.hatch = null;
    redraw();
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = new MutationObserver(recolor); // JupyterLab and VS Code write their theme on the body
  themes.observe(document.body, { attributes: true });
  const sizes = new ResizeObserver(redraw);
  sizes.observe(picture);
  dark.addEventListener("change", recolor);
  say(null);
  redraw();
  return () => {
    themes.disconnect();
    sizes.disconnect();
    dark.removeEventListener("change", recolor);
    cancelAnimationFrame(frame);
  };
}

export default { render };
