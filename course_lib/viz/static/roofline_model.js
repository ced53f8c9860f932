// The arithmetic of the roofline explorer: what course_lib/cost/operations.py and hardware.py compute, and how it is said.
// Rates, sizes and formulas come from Python; a test holds every result equal to Python's.

const MOST_TOKENS = 2 ** 20;
const { format } = new Intl.NumberFormat("en-US");

export const length = (op, tokens) => Math.min(tokens, op.context);
const sum = ([fixed, perToken, perPair], op, tokens) =>
  fixed + perToken * tokens + perPair * tokens * length(op, tokens);
export const flops = (op, tokens) => sum(op.flops_terms, op, tokens);
export const nbytes = (op, tokens) => sum(op.bytes_terms, op, tokens);
export const intensity = (op, tokens) => flops(op, tokens) / nbytes(op, tokens);

export const ridge = (roof) => roof.flops_per_s / roof.bytes_per_s;
export const attainable = (roof, x) => Math.min(roof.flops_per_s, x * roof.bytes_per_s);
export const seconds = (op, roof, tokens) =>
  Math.max(flops(op, tokens) / roof.flops_per_s, nbytes(op, tokens) / roof.bytes_per_s);
export const limit = (op, roof, tokens) => (intensity(op, tokens) >= ridge(roof) ? "arithmetic" : "memory");

// The smallest number of tokens with which arithmetic is the limit, or null.
export function tokensAtRidge(op, roof) {
  if (limit(op, roof, MOST_TOKENS) === "memory") return null;
  let [low, high] = [0, MOST_TOKENS]; // low is too few, high is enough
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (limit(op, roof, middle) === "arithmetic") high = middle;
    else low = middle;
  }
  return high;
}

// Numbers as text, as in roofline_scene.py.
export const three = (value) => (value >= 999.5 ? format(Math.floor(value + 0.5)) : value.toPrecision(3));
const LARGE = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const SMALL = [[1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
export function amount(value, unit) {
  const prefixes = unit === "s" ? SMALL : LARGE;
  const [size, prefix] = prefixes.find(([size]) => value >= 0.9995 * size) ?? prefixes.at(-1);
  return `${three(value / size)} ${prefix}${unit}`;
}
export const count = (value) => (Number.isInteger(value) ? format(value) : three(value));

// The readout: each number under its name.
export function figures({ op, roof, tokens }) {
  const x = intensity(op, tokens);
  const rate = attainable(roof, x);
  return {
    "FLOPs": amount(flops(op, tokens), "FLOP"),
    "bytes": amount(nbytes(op, tokens), "B"),
    "intensity": `${three(x)} FLOPs a byte`,
    "at best": amount(rate, "FLOP/s"),
    "of the peak": `${three(100 * (rate / roof.flops_per_s))} %`,
    "least time": amount(seconds(op, roof, tokens), "s"),
  };
}

export const title = ({ op, model, device }) => `${op.name} · ${model} · ${device}`;

// What is done, how fast, what limits it, and with what batch that changes.
export function sentences(scene) {
  const { op, roof, tokens } = scene;
  const [said, by, L] = [figures(scene), limit(op, roof, tokens), length(op, tokens)];
  const values = { tokens, length: L, batch: tokens / L };
  const formula = op.formula.replace(/{(\w+)}/g, (_, name) => count(values[name]));
  return [
    `${formula[0].toUpperCase()}${formula.slice(1)}.`,
    `${said.FLOPs} over ${said.bytes} are ${said.intensity}. ` +
      `At best ${said["at best"]}, ${said["of the peak"]} of the peak; at least ${said["least time"]}.`,
    `Limited by ${by}: the ridge is at ${three(ridge(roof))} FLOPs a byte. ${batch(scene, by)}`,
  ];
}

function batch({ op, roof, unit }, by) {
  if (!op.flops_terms[1] && !op.flops_terms[2]) return "The batch has no part in it.";
  const enough = tokensAtRidge(op, roof);
  if (enough === null) return "No batch is large enough to change that.";
  if (enough === 1) return "It is so with any batch.";
  const what = `${format(enough)} ${unit}`;
  if (by === "arithmetic") return `With fewer than ${what}, memory would be the limit.`;
  return `From ${what} on, arithmetic would be the limit.`;
}
