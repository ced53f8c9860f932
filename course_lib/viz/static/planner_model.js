// The marks of a search, those that a choice leaves, and what is said of one: the same as in planner_model.py and planner_words.py.

const FIELDS = ["rank", "ways", "pp", "tp", "microbatch", "chunks", "schedule", "recompute", "zero", "sequence_parallel", "limit"];
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
export const whole = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

// The marks, the fastest first, with the values that are filtered by under the names of the filters.
export function marksOf(data) {
  const kinds = FIELDS.length + data.kinds?.length;
  return data.rows.split("\n").filter(Boolean).map((row) => {
    const numbers = row.split(",").map(Number);
    const mark = Object.fromEntries(FIELDS.map((name, i) => [name, numbers[i]]));
    mark.memory = numbers.slice(FIELDS.length, kinds);
    mark.seconds = numbers.slice(kinds);
    [mark.held, mark.total] = [sum(mark.memory), sum(mark.seconds)];
    mark.dp = data.gpus / (mark.pp * mark.tp);
    mark.m = data.batch / (mark.dp * mark.microbatch);
    mark.schedule = data.schedules[mark.schedule];
    mark.recompute = data.recompute[mark.recompute];
    mark.sequence_parallel = Boolean(mark.sequence_parallel);
    return mark;
  });
}

export function leftOf(data, marks, state) {
  const chosen = (data.filters ?? []).map(([name]) => [name, state[name]]).filter(([, value]) => value !== data.any);
  return marks.filter((mark) => chosen.every(([name, value]) => mark[name] === value));
}

export const chosenOf = (left, state) => left.find((mark) => mark.rank === state.mark) ?? left[0];

// --- words

function three(value, most = 2) {
  const digits = Math.min(most, value < 10 ? 2 : value < 100 ? 1 : 0);
  return (Math.floor(value * 10 ** digits + 0.5) / 10 ** digits).toFixed(digits);
}

export const gb = (data, units) => three(units / data.perGB);

export function time(data, units) {
  const [seconds, known] = [units / data.perSecond, String(data.perSecond).length - 1]; // no digit smaller than a unit
  if (seconds >= 1) return `${three(seconds, known)} s`;
  if (seconds >= 1e-3) return `${three(seconds / 1e-3, Math.max(0, known - 3))} ms`;
  return `${three(seconds / 1e-6, Math.max(0, known - 6))} µs`;
}

const percent = (part, all) => whole(Math.floor((200 * part + all) / (2 * all)));
export const layout = ({ pp, dp, tp }) => `pp ${pp} × dp ${dp} × tp ${tp}`;

function more(best, mark) {
  const gap = mark.total - best.total;
  return gap * 200 < best.total ? "nearly as fast as the best of all" : `${percent(gap, best.total)} % slower than the best of all`;
}

export function leftText(data, marks, left) {
  if (!left.length) return `None of ${whole(marks.length)} marks is left: set something back to “${data.any}”.`;
  const [ways, standing] = [left, marks].map((list) => whole(sum(list.map((mark) => mark.ways))));
  const best = left[0];
  const some = `Left: ${whole(left.length)} of ${whole(marks.length)} marks, ${ways} of ${standing} candidates.`;
  const every = marks.length > 1 ? `All ${whole(marks.length)} marks are shown.` : "There is one mark.";
  const head = left.length === marks.length ? every : some;
  const text = `${head} The best of them: ${layout(best)}, ${time(data, best.total)}`;
  return best.rank === 1 ? `${text}, the best of all.` : `${text}, number ${whole(best.rank)}, ${more(marks[0], best)}.`;
}

export function difference(data, marks, mark) {
  const [best, total] = [marks[0], time(data, mark.total)];
  if (mark.rank === 1) return `${total}: the fastest of all that fit.`;
  const gaps = data.parts.map((name, i) => [mark.seconds[i] - best.seconds[i], name]);
  const said = gaps.filter(([gap]) => 100 * Math.abs(gap) > best.total)
    .sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]))
    .map(([gap, name]) => `${name} ${time(data, Math.abs(gap))} ${gap > 0 ? "more" : "less"}`);
  return `${total}, ${more(best, mark)}: ${said.join(", ") || "nearly the same in every part"}.`;
}

export function words(data, marks, mark) {
  const pieces = mark.chunks > 1 ? `, ${mark.chunks} pieces of the model on each stage` : "";
  const count = (n, word, ending) => `${whole(n)} ${word}${n === 1 ? "" : ending}`;
  const cost = mark.seconds[mark.limit];
  const beyond = mark.limit ? `: ${time(data, cost)}, ${percent(cost, mark.total)} % of the step` : "";
  return [
    `Number ${whole(mark.rank)} of ${whole(data.fit)}: ${layout(mark)}`,
    `${mark.schedule}${pieces}; ${count(mark.m, "micro-batch", "es")} of ${count(mark.microbatch, "sequence", "s")}; `
      + `${data.again[data.recompute.indexOf(mark.recompute)]}; ${data.shared[mark.zero]}; ${mark.sequence_parallel ? "with" : "without"} sequence parallel.`,
    `Limited by ${data.limits[mark.limit]}${beyond}. ${data.why[mark.limit]}`,
    difference(data, marks, mark),
  ];
}

// All of it, as `describe` says it in Python.
export function describe(data, marks, state) {
  const left = leftOf(data, marks, state);
  const mark = chosenOf(left, state);
  const lines = [data.title, data.counts];
  if (marks.length) lines.push(leftText(data, marks, left));
  if (mark) {
    const held = data.kinds.map((name, i) => `${name} ${gb(data, mark.memory[i])}`);
    const spent = data.parts.map((name, i) => mark.seconds[i] && `${name} ${time(data, mark.seconds[i])}`).filter(Boolean);
    lines.push(...words(data, marks, mark), `Memory: ${gb(data, mark.held)} of ${data.room}: ${held.join(", ")}.`, `Time: ${spent.join(", ")}.`);
  }
  return lines.join("\n");
}
