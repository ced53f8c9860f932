// What a reader looks at: the part of the time that is in view, what is at a point of it, what is selected, and its
// description in words.

const { format } = new Intl.NumberFormat("en-US");

// The event of another rank that is most like this one: of its name if there is one, and close in time.
function nearest(events, { start, call }) {
  const far = (e) => Math.abs(e.start - start) + (e.call.operation === call.operation ? 0 : 1e12);
  return events.reduce((best, e, k) => (far(e) < far(events[best]) ? k : best), 0);
}

const rankText = (ranks) =>
  ranks.length > 2 && ranks.at(-1) - ranks[0] === ranks.length - 1 ? `${ranks[0]}–${ranks.at(-1)}` : ranks.join(", ");

class View {
  constructor(data, canvas) {
    const open = new Set(data.open); // never complete
    Object.assign(this, { data, canvas, open, geometry: data.geometry, lanes: lanes(data), selected: null });
    this.fit();
  }

  get whole() { // the trace with a little air
    return [-0.01 * this.data.ticks, 1.01 * this.data.ticks];
  }

  fit() {
    this.view = this.whole;
  }

  get plot() { // left edge and width of the part with the lanes, in CSS pixels
    const { left } = this.geometry;
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
    const [low, high] = this.whole;
    start = Math.min(Math.max(start, low), high - length);
    this.view = [start, start + length];
  }

  text(tick, length) { // a time, with as many decimals as tell two ticks of the axis apart
    const { tick_s, begin_s } = this.data;
    const whole_s = this.data.ticks * tick_s;
    const [unit, name] = whole_s >= 2 ? [1, "s"] : begin_s + whole_s < 2e-3 ? [1e-6, "µs"] : [1e-3, "ms"];
    const step = (length ?? tick) * tick_s;
    const decimals = Math.min(7, Math.max(0, Math.ceil(-Math.log10(step / unit) + 0.001) + (length ? 0 : 2)));
    return `${((length ? begin_s : 0) / unit + (tick * tick_s) / unit).toFixed(decimals)} ${name}`;
  }

  // What is at a point: an event, or a stretch of compute.
  at(px, py) {
    const { geometry: g } = this;
    const r = Math.floor((py - g.top) / g.pitch);
    const lane = this.lanes[r];
    if (!lane || px < this.plot[0]) return null;
    const y = py - g.top - r * g.pitch;
    const tick = this.tickAt(px);
    const slack = this.tickAt(px + 2) - tick;
    if (y < g.strips) {
      const row = Math.floor(y / g.row);
      const event = lane.spans.findLast((s) => this.drawn(s) && s.row === row && s.start <= tick + slack && s.stop >= tick - slack);
      return event ? { lane: r, event } : null;
    }
    const k = after(lane.stops, tick, 1) - 1;
    const near = [k, k - 1, k + 1].map((j) => lane.segments[j]).filter((s) => s && s[0] <= tick + slack && s[1] >= tick - slack);
    const busy = near.find((s) => s[3] !== COMPUTE);
    if (busy) return { lane: r, event: lane.events[busy[2]], others: this.flying(lane, tick, busy) };
    return near[0] ? { lane: r, segment: near[0] } : null;
  }

  drawn(span) { // the last row is for the innermost
    return span.leaf || span.row < this.geometry.rows - 1;
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
