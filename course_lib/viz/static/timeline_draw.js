// How a timeline is drawn, however many events it has: each thing by itself where few are in view, else what each column
// of pixels mostly holds.

const MANY = 1500; // things in view; more are not drawn one by one

class Timeline extends View {
  resize() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.geometry.height];
    this.canvas.style.height = `${height}px`;
    const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== pixels[0]) this.canvas.width = pixels[0];
    if (this.canvas.height !== pixels[1]) this.canvas.height = pixels[1];
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  theme() { // the page's colours; a canvas does not know CSS variables
    this.colors = {};
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
    this.hatch = this.hatching();
  }

  hatching() { // the pattern of waiting
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
    const pattern = c.createPattern(tile, "repeat");
    pattern.setTransform(new DOMMatrix().scale(0.5));
    return pattern;
  }

  draw() {
    if (!this.canvas.clientWidth) return; // not shown yet
    this.resize();
    if (!this.hatch) this.theme();
    const { context: c, geometry: g } = this;
    const [left, width] = this.plot;
    c.clearRect(0, 0, this.canvas.clientWidth, g.height);
    c.textBaseline = "middle";
    this.labels = [];
    this.axis(c, left, width);
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
    const { colors, data, geometry: g } = this;
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
    const { data: { ticks }, geometry: g, bits } = this;
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

  axis(c, left, width) {
    const { data, colors, geometry: g } = this;
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

  // The segments in view, as paths; a wait fills the lane, a flight its upper part.
  body(lane, y, flight, wait) {
    const { geometry: g } = this;
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
    const { geometry: g } = this;
    const [a, b] = this.view;
    for (let k = after(lane.reach, a); k < lane.spans.length && lane.spans[k].start < b; k++) {
      const span = lane.spans[k];
      if (span.stop < a || !this.drawn(span)) continue;
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
    const { geometry: g } = this;
    const y = g.top + lane * g.pitch;
    const box = (start, stop, top, height, line) => {
      const x = this.x(start);
      Object.assign(c, { strokeStyle: this.colors.fg, lineWidth: line });
      c.strokeRect(x, top, Math.max(2, this.x(stop) - x), height);
    };
    if (event.call.kind === SPAN) return box(event.start, event.stop, y + event.row * g.row, g.row - 1.5, 2);
    box(event.start, event.stop, y + g.strips - 1, g.body + 2, 2);
    c.setLineDash([3, 2]);
    for (const wait of event.waits) box(...wait, y + g.strips + 1.5, g.body - 3, 1.5);
    c.setLineDash([]);
  }
}
