// From the columns that Python sends to one lane a rank: how its time is cut up (as Trace.segments does it), and sums that
// are quick to look up. Joined with timeline_view.js, timeline_draw.js and timeline.js, in this order, into one module.

const [SPAN, COMPUTE, FLIGHT, WAIT] = [2, 0, 1, 2]; // a kind of event; what a rank does in a segment

// One piece after the other: where two overlap, the time is the first one's.
function inTurn(pieces) {
  const taken = [];
  let at = -Infinity;
  for (const [start, stop, i] of pieces.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (stop > Math.max(start, at)) {
      taken.push([Math.max(start, at), stop, i]);
      at = stop;
    }
  }
  return taken;
}

// The pieces less the holes; both are in turn.
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
