// The arithmetic of a mesh in the page: layout, groups, what is sent and held. It is that of course_lib.layout, cost.traffic
// and viz/mesh_model.py; a test holds both to the same words. A state has pp, dp, cp, tp, order, ranks_per_node and rank.

export const AXES = ["pp", "dp", "cp", "tp"];
export const SHOWN = ["tp", "cp", "dp", "pp"]; // the axes, from those that talk most
export const MAX_RANKS = 4096;
const whole = new Intl.NumberFormat("en-US").format;
const count = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;
const sum = (values) => values.reduce((a, b) => a + b, 0);
const range = (n, step = 1) => Array.from({ length: n }, (_, k) => k * step);

export const worldSize = (state) => AXES.reduce((product, axis) => product * state[axis], 1);
export const numNodes = (state) => Math.ceil(worldSize(state) / state.ranks_per_node);
export const nodeOf = (state, rank) => Math.floor(rank / state.ranks_per_node);
export const orderOf = (state) => state.order.split(" ");

export function stride(state, axis) {
  const order = orderOf(state);
  return order.slice(order.indexOf(axis) + 1).reduce((product, inner) => product * state[inner], 1);
}

export const coordinate = (state, rank, axis) => Math.floor(rank / stride(state, axis)) % state[axis];

export function group(state, rank, axis) {
  const step = stride(state, axis);
  const first = rank - coordinate(state, rank, axis) * step;
  return range(state[axis], step).map((away) => first + away);
}

// The rule that sizes break, "" if there is none; the first is of the mesh, the second of the model on it.
export function sizeRule(state) {
  const n = worldSize(state);
  return n > MAX_RANKS ? `${meshText(state)} has ${whole(n)} ranks: there is room for ${whole(MAX_RANKS)}.` : "";
}

export function modelRule({ model, plan }, state) {
  if (state.cp > 1) return "What a rank holds and sends is counted here for cp = 1.";
  const rules = [
    [model.num_layers, state.pp, "layers", "pp × chunks"],
    [model.num_heads, state.tp, "heads", "tp"],
    [model.mlp_width, state.tp, "columns of the MLP", "tp"],
  ];
  for (const [size, parts, what, name] of rules)
    if (size % parts) return `${model.name} has ${size} ${what}, which ${name} = ${parts} does not divide: take a divisor of ${size}.`;
  if (plan.sequence_parallel && model.context % state.tp)
    return `sequence parallel cuts ${model.context} tokens by tp = ${state.tp}, which does not divide them.`;
  return "";
}

const PASSES = { all_reduce: 2, all_gather: 1, reduce_scatter: 1 };

// The link that limits a group: inside a node, or the network links of its members in the node that has the fewest.
function linkOf({ system }, state, ranks) {
  const members = {};
  for (const rank of ranks) members[nodeOf(state, rank)] = (members[nodeOf(state, rank)] ?? 0) + 1;
  const counts = Object.values(members);
  if (counts.length <= 1) return system.inside;
  return [system.across[0], Math.min(Math.min(...counts) * system.across[1], system.inside[1])];
}

function collectives(data, state, axis, calls, ranks) {
  const n = ranks.length;
  const [latency, bandwidth] = linkOf(data, state, ranks);
  const sent = sum(calls.map(([operation, nbytes, times]) => times * (((PASSES[operation] * (n - 1)) / n) * nbytes)));
  const messages = sum(calls.map(([operation, , times]) => times * (PASSES[operation] * (n - 1))));
  return { axis, ranks, sent, messages, bandwidth, seconds: messages * latency + sent / (bandwidth * 1e9) };
}

function tensorCalls({ model, plan }, state, stage) {
  const [m, layers] = [plan.num_microbatches, model.num_layers / state.pp];
  const nbytes = 2 * plan.microbatch * model.context * model.width;
  const halves = [["all_gather", nbytes, 2], ["reduce_scatter", nbytes, 2]];
  const forward = plan.sequence_parallel ? halves : [["all_reduce", nbytes, 2]];
  const backward = plan.sequence_parallel ? [...halves, ["all_gather", nbytes, 2]] : forward;
  const again = plan.recompute === "full" ? forward : [];
  const calls = [...forward, ...backward, ...again].map(([operation, size, times]) => [operation, size, times * layers * m]);
  const [first, last] = [stage === 0, stage === state.pp - 1];
  calls.push(["all_reduce", nbytes, (first + last) * m]);
  if (!plan.sequence_parallel) calls.push(["all_gather", nbytes, m * (2 - first - last)]);
  return calls;
}

export function stageParameters({ model }, state, stage) {
  let number = (model.num_layers / state.pp) * model.layer_parameters;
  const head = model.head_parameters + model.extra_parameters;
  if (stage === 0) number += model.embedding_parameters + (state.pp === 1 ? head : 0);
  else if (stage === state.pp - 1) number += head + (model.tied ? model.width * model.vocab_size : 0);
  return Math.ceil(number / state.tp);
}

function sends({ model, plan, ...data }, state, ranks, rank) {
  const [stage, m] = [ranks.indexOf(rank), plan.num_microbatches];
  const nbytes = (2 * plan.microbatch * model.context * model.width) / state.tp;
  const links = [];
  if (stage < state.pp - 1) links.push(linkOf(data, state, [rank, ranks[stage + 1]]));
  if (stage > 0) links.push(linkOf(data, state, [rank, ranks[stage - 1]]));
  const takes = ([latency, bandwidth]) => latency + nbytes / (bandwidth * 1e9);
  const slowest = links.reduce((a, b) => (takes(b) > takes(a) ? b : a), links[0] ?? data.system.inside);
  const messages = links.length * m;
  return { axis: "pp", ranks, sent: messages * nbytes, messages, bandwidth: slowest[1], seconds: sum(links.map((link) => m * takes(link))) };
}

// What a rank sends in one step, group by group.
export function traffic(data, state, rank) {
  const { model } = data;
  const stage = coordinate(state, rank, "pp");
  const along = Object.fromEntries(AXES.map((axis) => [axis, group(state, rank, axis)]));
  const gradients = [["all_reduce", 2 * stageParameters(data, state, stage), 1]];
  const found = [
    collectives(data, state, "tp", tensorCalls(data, state, stage), along.tp),
    collectives(data, state, "dp", gradients, along.dp),
    sends(data, state, along.pp, rank),
  ];
  if (model.tied && state.pp > 1 && (stage === 0 || stage === state.pp - 1)) {
    const shared = ["all_reduce", (2 * model.width * model.vocab_size) / state.tp, 1];
    found.push(collectives(data, state, "ends", [shared], [along.pp[0], along.pp.at(-1)]));
  }
  return found.filter(({ ranks }) => ranks.length > 1);
}

// --- words

const meshText = (state) => orderOf(state).filter((axis) => state[axis] > 1).map((axis) => `${axis} ${state[axis]}`).join(" × ");

export function title(state) {
  const mesh = meshText(state);
  return `${mesh && `${mesh}: `}${count(worldSize(state), "rank")} on ${count(numNodes(state), "node")} of ${state.ranks_per_node}`;
}

export function place(state, rank) {
  const along = orderOf(state).filter((axis) => state[axis] > 1).map((axis) => `${axis} ${coordinate(state, rank, axis)}`);
  return [`rank ${rank}`, along.join(", "), `node ${nodeOf(state, rank)}`].filter(Boolean).join(" · ");
}

function three(value) {
  const digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return (Math.floor(value * 10 ** digits + 0.5) / 10 ** digits).toFixed(digits);
}

export function secondsText(seconds) {
  if (seconds >= 1) return `${three(seconds)} s`;
  return seconds >= 1e-3 ? `${three(seconds / 1e-3)} ms` : `${three(seconds / 1e-6)} µs`;
}

export function bytesText(nbytes) {
  if (nbytes < 1000) return `${nbytes} bytes`;
  const [power, name] = [[12, "TB"], [9, "GB"], [6, "MB"], [3, "kB"]].find(([p]) => nbytes >= 10 ** p);
  const tenths = Math.floor((10 * nbytes + 10 ** power / 2) / 10 ** power);
  return `${Math.floor(tenths / 10)}.${tenths % 10} ${name}`;
}

function ranksText(ranks) {
  if (ranks.length > 2 && ranks.at(-1) - ranks[0] === ranks.length - 1) return `${ranks[0]}–${ranks.at(-1)}`;
  return ranks.length <= 4 ? ranks.join(", ") : `${ranks[0]}, ${ranks[1]}, … ${ranks.at(-1)}`;
}

function nodesText(state, ranks) {
  return `${ranks.length} on ${new Set(ranks.map((rank) => nodeOf(state, rank))).size}`;
}

function neighbours(state, axis, ranks, rank) {
  const [at, n] = [ranks.indexOf(rank), ranks.length];
  const steps = n > 2 || axis === "pp" ? [[-1, "←"], [1, "→"]] : [[at === 0 ? 1 : -1, "↔"]];
  const found = steps.filter(([step]) => axis !== "pp" || (at + step >= 0 && at + step < n));
  return found.map(([step, arrow]) => {
    const other = ranks[(at + step + n) % n];
    return `${arrow} ${other} ${nodeOf(state, other) === nodeOf(state, rank) ? "inside" : "across"}`;
  }).join(", ");
}

// For each group: axis, its ranks, where they are, both neighbours and the links to them, bytes, seconds.
export function groupRows(data, state) {
  const sent = modelRule(data, state) ? [] : traffic(data, state, state.rank);
  const groups = SHOWN.filter((axis) => state[axis] > 1).map((axis) => [axis, group(state, state.rank, axis)]);
  for (const { axis, ranks } of sent) if (axis === "ends") groups.push([axis, ranks]);
  return groups.map(([axis, ranks]) => {
    const found = sent.find((one) => one.axis === axis);
    const amount = found ? `${bytesText(Math.floor(found.sent + 0.5))} in ${count(found.messages, "message")}` : "";
    const takes = found ? `${secondsText(found.seconds)} at ${three(found.bandwidth)} GB/s` : "";
    return [axis, ranksText(ranks), nodesText(state, ranks), neighbours(state, axis, ranks, state.rank), amount, takes];
  });
}

export function holdings(data, state) {
  const { model } = data;
  const rule = modelRule(data, state);
  if (rule) return [rule];
  const [stage, slice] = ["pp", "tp"].map((axis) => coordinate(state, state.rank, axis));
  const span = (length) => {
    const part = Math.ceil(length / state.tp);
    return [Math.min(slice * part, length), Math.min((slice + 1) * part, length)];
  };
  const cut = (length) => span(length).map(whole).join(":");
  const each = model.num_layers / state.pp;
  const layers = each > 1 ? `layers ${stage * each}–${(stage + 1) * each - 1}` : `layer ${stage}`;
  const [q, kv, up] = [model.query_width, model.kv_width, model.mlp_width].map(cut);
  const columns = model.kv_width === model.query_width ? `q, k, v columns ${q}` : `q columns ${q}, k and v columns ${kv}`;
  const ends = [];
  if (stage === 0) ends.push(`, rows ${cut(model.vocab_size)} of the token embedding`);
  if (stage === state.pp - 1) ends.push(`, the head for tokens ${cut(model.vocab_size)}`);
  const [first, stop] = span(model.num_heads);
  return [
    `holds ${layers} of ${model.name}'s ${model.num_layers}${ends.join("")}`,
    `of each layer heads ${first}–${stop - 1}: ${columns}, o rows ${q}`,
    `of each MLP ${model.gated ? "gate and up" : "up"} columns ${up}, down rows ${up}`,
    `${whole(stageParameters(data, state, stage))} parameters${state.dp > 1 ? ", the same as on the other ranks of its dp group" : ""}`,
  ];
}

export function describe(data, state) {
  const rows = groupRows(data, state).map((row) => row.filter(Boolean).join(" · "));
  return [title(state), place(state, state.rank), ...rows, ...holdings(data, state)].join("\n");
}
