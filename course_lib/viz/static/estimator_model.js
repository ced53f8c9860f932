// The formulas and sentences of course_lib.cost and of viz/estimator_model.py, in the page; a test holds both
// to the same bytes and words. A model is what shape_data() gives, a plan an object with the fields of a Plan.

const whole = new Intl.NumberFormat("en-US").format;
const ceilDiv = (a, b) => (a - (a % b)) / b + (a % b ? 1 : 0);
const plural = (n, word, ending = "s") => `${whole(n)} ${word}${n === 1 ? "" : ending}`;

// To a whole number as Python rounds: a half to the even neighbour.
function round(x) {
  const [down, rest] = [Math.floor(x), x - Math.floor(x)];
  return rest === 0.5 ? down + (down % 2) : Math.round(x);
}

export const KINDS = ["parameters", "gradients", "optimizer_state", "activations"];
const microbatches = ({ batch, dp, microbatch }) => Math.floor(batch / (dp * microbatch));
export const numGpus = ({ pp, dp, tp }) => pp * dp * tp;
export const totalOf = (use) => KINDS.reduce((sum, kind) => sum + use[kind], 0);

// The rule that a plan breaks, as Plan and Plan.check_fits say it; "" if it is possible.
export function rule(model, plan) {
  const { pp, dp, tp, batch, microbatch, chunks } = plan;
  for (const name of ["pp", "dp", "tp", "batch", "microbatch", "chunks"]) {
    if (plan[name] < 1) return `${name} is ${plan[name]}: it must be at least 1.`;
  }
  const parts = dp * microbatch;
  if (batch % parts) {
    const how = `into micro-batches of ${microbatch} on dp = ${dp} copies`;
    return `a batch of ${batch} does not split ${how}: it must be a multiple of ${parts}.`;
  }
  const m = microbatches(plan);
  if (chunks > 1 && (pp === 1 || m % pp)) {
    const schedule = `an interleaved schedule (chunks = ${chunks})`;
    const here = `here pp = ${pp} and there are ${m}. Take chunks=1, or another batch.`;
    return `${schedule} needs pp > 1 and micro-batches in multiples of pp; ${here}`;
  }
  for (const [size, parts, what, name] of [
    [model.num_layers, pp * chunks, "layers", "pp × chunks"],
    [model.num_heads, tp, "heads", "tp"],
    [model.mlp_width, tp, "columns of the MLP", "tp"],
  ]) {
    const cut = `${model.name} has ${size} ${what}, which ${name} = ${parts}`;
    if (size % parts) return `${cut} does not divide: take a divisor of ${size}.`;
  }
  if (plan.sequence_parallel && model.context % tp) {
    return `sequence parallel cuts ${model.context} tokens by tp = ${tp}, which does not divide them.`;
  }
  return "";
}

function layerActivations(model, { microbatch, tp, sequence_parallel }, recompute) {
  const tokens = microbatch * model.context;
  const parts = sequence_parallel ? tp : 1;
  if (recompute === "full") return (2 * tokens * model.width) / parts;
  const uncut = (8 + 2 * model.dropout) * model.width;
  const cut = 4 * model.query_width + 4 * model.kv_width + (model.gated ? 8 : 4) * model.mlp_width;
  const core = recompute === "none" ? (model.dropout ? 5 : 2) * model.num_heads * model.context : 0;
  return tokens * (uncut / parts + (cut + core) / tp);
}

// memory_use(): the bytes on a GPU of the first stage, of a plan that is possible.
export function memoryUse(model, plan) {
  const { pp, dp, tp, chunks, zero } = plan;
  const m = microbatches(plan);
  const ends = model.embedding_parameters + (pp === 1 ? model.last_parameters : 0);
  const parameters = ceilDiv(Math.floor(model.num_layers / pp) * model.layer_parameters + ends, tp);
  const held = [[2, 3], [plan.gradient_bytes, 2], [12, 1]]; // bytes a parameter, and the stage dividing them
  const state = held.map(([bytes, stage]) => ceilDiv(parameters * bytes, zero >= stage ? dp : 1));
  const interleaved = chunks > 1 ? 1 + (pp - 1) / (pp * chunks) : 1;
  const inFlight = model.num_layers * interleaved * Math.min(1, m / pp);
  let layers = inFlight * layerActivations(model, plan, plan.recompute);
  if (plan.recompute === "full") layers += layerActivations(model, plan, "none");
  const head = pp === 1 ? 4 * (model.width + model.vocab_size) : 0;
  const masks = model.width * Math.min(pp, m) * model.dropout;
  const outside = (plan.microbatch * model.context * (masks + head)) / tp;
  return Object.fromEntries([...state, round(layers + outside)].map((bytes, k) => [KINDS[k], bytes]));
}

export function gbText(nbytes, of = nbytes) {
  let [decimals, limit] = [1, 10e9];
  for (; decimals < 6 && of < limit; decimals++) limit /= 10;
  const unit = 10 ** (9 - decimals);
  const digits = Math.floor((nbytes + unit / 2) / unit);
  const power = 10 ** decimals;
  return `${whole(Math.floor(digits / power))}.${String(digits % power).padStart(decimals, "0")} GB`;
}

export const verdictText = (spare) =>
  spare >= 0 ? `fits: ${gbText(spare)} to spare` : `does not fit: ${gbText(-spare)} too many`;

export function sizesText(plan) {
  const { pp, dp, tp, microbatch } = plan;
  const steps = `${plural(microbatches(plan), "micro-batch", "es")} of ${plural(microbatch, "sequence")}`;
  return `${plural(numGpus(plan), "GPU")} = tp ${tp} × pp ${pp} × dp ${dp} · ${steps} per pipeline`;
}

export function idleText({ zero, dp, sequence_parallel, tp }) {
  const notes = [];
  if (zero && dp === 1) notes.push("ZeRO divides by dp, which is 1.");
  if (sequence_parallel && tp === 1) notes.push("Sequence parallel divides by tp, which is 1.");
  return notes.join(" ");
}

export function describe(model, gpu, capacity, plan, use) {
  const total = totalOf(use);
  const parts = KINDS.map((kind) => `${kind.replace("_", " ")} ${gbText(use[kind], total)}`).join(", ");
  const head = `${model.name} on ${gpu} (${capacity / 1e9} GB), one GPU of the first stage`;
  return `${head}: ${parts}, total ${gbText(total)}; ${verdictText(capacity - total)}; ${sizesText(plan)}`;
}

const range = (from, to) => Array.from({ length: Math.max(0, to - from + 1) }, (_, k) => from + k);

// One step of each field towards less memory; all of them are possible.
function steps(model, plan, recomputations) {
  const { tp, pp, dp, batch, microbatch } = plan;
  const more = recomputations[recomputations.indexOf(plan.recompute) + 1];
  const candidates = [
    plan.zero < 3 ? [{ zero: plan.zero + 1 }] : [],
    more ? [{ recompute: more }] : [],
    [{ sequence_parallel: true }],
    [{ chunks: 1 }],
    range(2 * tp, model.num_heads).map((n) => ({ tp: n })),
    range(2 * pp, model.num_layers).map((n) => ({ pp: n })),
    [{ dp: 2 * dp }, { dp: 2 * dp, batch: 2 * batch }],
    microbatch % 2 ? [] : [{ microbatch: microbatch / 2 }],
  ];
  const possible = (settings) => !rule(model, { ...plan, ...settings });
  return candidates.map((choices) => choices.find(possible)).filter(Boolean);
}

const word = (value) => (typeof value === "boolean" ? (value ? "on" : "off") : value);
const order = (a, b) => {
  const first = (s) => (s.spare_bytes < 0 ? [2, 0] : ["gpu" in s.settings ? 1 : 0, s.num_gpus]);
  const keys = (s) => [...first(s), -s.spare_bytes];
  const [p, q] = [keys(a), keys(b)];
  const k = p.findIndex((value, i) => value !== q[i]);
  return k < 0 ? 0 : p[k] - q[k];
};

// suggestions(): the single changes that need less memory. data: what Python sends; state: model, gpu and the
// fields of a plan that is possible.
export function suggestions(data, state) {
  const [model, capacity] = [data.models[state.model], data.gpus[state.gpu]];
  const now = totalOf(memoryUse(model, state));
  const labels = Object.assign({}, ...Object.values(data.labels));
  const step = ([name, value]) => `${labels[name]} ${word(state[name])} → ${word(value)}`;
  const found = [];
  const add = (settings, total_bytes, spare_bytes, num_gpus) => {
    const change = Object.entries(settings).map(step).join(", ");
    found.push({ change, settings, total_bytes, spare_bytes, num_gpus });
  };
  for (const settings of steps(model, state, data.recompute)) {
    const after = { ...state, ...settings };
    const total = totalOf(memoryUse(model, after));
    if (total < now) add(settings, total, capacity - total, numGpus(after));
  }
  const presets = data.presets.map((gpu) => [gpu, data.gpus[gpu]]);
  const larger = presets.filter(([, bytes]) => bytes > capacity).sort((a, b) => a[1] - b[1]);
  if (larger.length && now > capacity) {
    const [gpu, bytes] = larger.find(([, bytes]) => now <= bytes) ?? larger.at(-1);
    add({ gpu }, now, bytes - now, numGpus(state));
  }
  return found.sort(order);
}

// The sentence above the suggestions.
export function heading(found, nowFits) {
  const fit = found.filter((s) => s.spare_bytes >= 0).length;
  if (!found.length) return "No single change needs less memory.";
  if (nowFits) return "The total after one change:";
  if (!fit) return "No single change is enough. The best ones:";
  return `The total after one change: ${fit} of ${found.length} ${fit === 1 ? "makes" : "make"} it fit.`;
}
