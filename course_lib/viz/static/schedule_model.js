// When each action starts and ends, what that comes to, and the words for it. As in course_lib/simulate.py.

const KINDS = { F: "forward", B: "backward", I: "backward, input only,", W: "backward, weights only," };
const short = (value, digits = 6) => String(Number((value * (1 + 1e-12)).toPrecision(digits))); // halves up, as in Python
const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

// An action knows its rank, place, chunk, start, end and needs, so that the picture can point at them.
export function simulate(state) {
  const { p, forward, backward, message } = state;
  const chunks = chunksOf(state);
  const orders = ordersOf(state);
  const [stages, m] = [p * chunks, state.schedule === "relay" ? 1 : state.m];
  const wide = { F: forward / chunks, B: backward / chunks, I: backward / chunks / 2, W: backward / chunks / 2 };
  const done = { F: [], I: [], W: [] }; // by stage · m + micro-batch
  const waiting = { F: [], I: [] };
  const ranks = orders.map((order, rank) => {
    const own = [...new Set(order.map(([, stage]) => stage))].sort((a, b) => a - b);
    return order.map(([kind, stage, microbatch], at) => ({ kind, stage, microbatch, rank, at, chunk: own.indexOf(stage) }));
  });
  const needsOf = ({ kind, stage, microbatch }) => {
    const key = stage * m + microbatch;
    if (kind === "F") return stage ? [["F", key - m]] : [];
    if (kind === "W") return [["I", key]];
    return stage + 1 < stages ? [["F", key], ["I", key + m]] : [["F", key]];
  };
  const position = new Array(p).fill(0);
  const free = new Array(p).fill(0);
  const ready = ranks.map((_, rank) => rank);
  while (ready.length) {
    const rank = ready.pop();
    for (; position[rank] < ranks[rank].length; position[rank]++) {
      const action = ranks[rank][position[rank]];
      const needs = needsOf(action);
      const missing = needs.find(([kind, key]) => !done[kind][key]);
      if (missing) {
        (waiting[missing[0]][missing[1]] ??= []).push(rank);
        break;
      }
      action.needs = needs.map(([kind, key]) => done[kind][key]);
      action.free = action.start = free[rank];
      for (const need of action.needs) {
        action.start = Math.max(action.start, need.end + (need.rank === rank ? 0 : message));
      }
      action.end = free[rank] = action.start + wide[action.kind];
      const [gives, key] = [action.kind === "B" ? "I" : action.kind, action.stage * m + action.microbatch];
      done[gives][key] = action;
      if (gives !== "W") ready.push(...(waiting[gives][key] ?? []));
    }
  }
  return summed({ state, ranks, chunks, stages, m, p, message });
}

function summed(sim) {
  sim.makespan = Math.max(...sim.ranks.map((rank) => rank.at(-1).end));
  sim.works = sim.ranks.map((rank) => rank.reduce((sum, { start, end }) => sum + (end - start), 0));
  sim.work = sim.works.reduce((sum, work) => sum + work, 0);
  sim.idle = sim.makespan * sim.p - sim.work;
  if (sim.idle < 1e-9 * sim.work) sim.idle = 0; // what rounding leaves
  sim.bubble = sim.idle / sim.work;
  sim.peaks = sim.ranks.map((rank) => {
    let [live, peak] = [0, 0];
    for (const { kind } of rank) {
      if (kind === "F") peak = Math.max(peak, ++live);
      if (kind === "B" || kind === "W") live--;
    }
    return peak;
  });
  sim.name = sim.state.schedule + (sim.state.schedule === "interleaved 1F1B" ? `, v = ${sim.chunks}` : "");
  sim.title = `${sim.name}: ${plural(sim.p, "rank")}, ${plural(sim.m, "micro-batch", "micro-batches")}`;
  return sim;
}

// What is held on a rank at a time: F has begun, and B or W has not ended.
export function heldAt(rank, time) {
  let held = 0;
  for (const { kind, start, end } of rank) {
    if (start > time) break;
    if (kind === "F") held++;
    else if (kind !== "I" && end <= time) held--;
  }
  return held;
}

// The bubble as the papers have it: [formula, value, when it holds], or null where they have none.
export function formulaOf({ state: { schedule, v }, p, m }) {
  return {
    relay: ["p − 1", p - 1, "messages are free"],
    GPipe: ["(p−1)/m", (p - 1) / m, "messages are free"],
    "1F1B": ["(p−1)/m", (p - 1) / m, "messages are free"],
    "interleaved 1F1B": ["(p−1)/(v·m)", (p - 1) / (v * m), "p divides m and messages are free"],
    "ZB-H1": ["(p−1)/(3m)", (p - 1) / (3 * m), "F = I = W, m ≥ p, and messages are free"],
  }[schedule] ?? null;
}

export const nameOf = ({ kind, stage, microbatch }) => `${stage}${kind}${microbatch}`;

// One line: which rank does what, when, and what it waited for.
export function describe(sim, action) {
  const { rank, stage, kind, microbatch, start, end, free } = action;
  const head = `rank ${rank}, stage ${stage}: ${KINDS[kind]} of micro-batch ${microbatch}, from ${short(start)} s to ${short(end)} s`;
  return `${head}; ${waitedFor(sim, action, start - free)}`;
}

function waitedFor(sim, { needs, rank, start }, waited) {
  if (waited <= 1e-9 * sim.makespan) return "no wait";
  const arrives = (need) => need.end + (need.rank === rank ? 0 : sim.message);
  const last = needs.reduce((a, b) => (arrives(b) > arrives(a) ? b : a));
  const message = last.rank !== rank && sim.message ? " and its message" : "";
  return `waited ${short(waited)} s for ${nameOf(last)}${message}`;
}

// The same of a gap: the action after it says what the rank waits for.
export function describeGap(sim, rank, time) {
  const next = sim.ranks[rank].find(({ start }) => start > time);
  const from = next ? next.free : sim.ranks[rank].at(-1).end;
  const to = next ? next.start : sim.makespan;
  const why = next ? `, until ${nameOf(next)} can start: ${waitedFor(sim, next, to - from)}` : ": all of its work is done";
  return `rank ${rank} is idle from ${short(from)} s to ${short(to)} s${why}`;
}

// The picture in words.
export function describeAll(sim) {
  const peak = Math.max(...sim.peaks);
  const bubble = `bubble ${short(sim.bubble, 4)}: ${short(sim.idle)} s idle / ${short(sim.work)} s of work`;
  const held = `a rank holds at most ${plural(peak, "stage activation")}`;
  return `${sim.title}. makespan ${short(sim.makespan)} s · ${bubble} · ${held}.`;
}
