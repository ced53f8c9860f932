// The schedules in the page: for each rank its actions in order. As in course_lib/schedules, whose docstrings say why.

export const SCHEDULES = ["relay", "GPipe", "1F1B", "interleaved 1F1B", "ZB-H1", "ZB-V", "DualPipeV"];

// [kind, stage, microbatch]; throws the sentence that says which sizes would do.
export function ordersOf({ schedule, p, m, v }) {
  const ranks = Array.from({ length: p }, (_, rank) => rank);
  const vee = { "ZB-V": zbV, DualPipeV: dualpipeV }[schedule];
  if (schedule === "DualPipeV" && m < 2 * p) {
    throw new Error(`DualPipeV needs at least 2p = ${2 * p} micro-batches, not m = ${m}: take more, or another schedule.`);
  }
  if (vee) return ranks.map((rank) => vee(p, m, rank));
  const turns = (rank) => p - 1 - rank;
  const pattern = {
    relay: () => [1, () => 1],
    GPipe: () => [m, () => m],
    "1F1B": () => [m, turns],
    "interleaved 1F1B": () => {
      const round = roundOf(p, m);
      return [m, (rank) => (v - 1) * round + 2 * turns(rank), v, round];
    },
    "ZB-H1": () => [m, turns, 1, m, (rank) => rank],
  }[schedule]();
  return ranks.map((rank) => inTurn(rank, p, ...pattern));
}

// How many chunks of the model a rank has.
export const chunksOf = ({ schedule, v }) =>
  schedule === "interleaved 1F1B" ? v : ["ZB-V", "DualPipeV"].includes(schedule) ? 2 : 1;

function roundOf(p, m) {
  const rounds = Math.max(1, Math.floor(m / p));
  if (m % rounds === 0) return m / rounds;
  const below = Math.floor(m / p) * p;
  throw new Error(
    `m = ${m} micro-batches cannot go in ${rounds} equal rounds of about p = ${p}; ${below} or ${below + p} would do.`,
  );
}

// Warm up with forwards, then a forward and a backward in turn, then what is left.
function inTurn(rank, p, m, warmUp, v = 1, round = m, postponed = null) {
  const [forwards, backwards, actions] = [[], [], []];
  for (let start = 0; start < m; start += round) {
    for (let chunk = 0; chunk < v; chunk++) {
      for (let i = start; i < start + round; i++) {
        forwards.push([chunk * p + rank, i]);
        backwards.push([(v - 1 - chunk) * p + rank, i]);
      }
    }
  }
  const first = Math.min(warmUp(rank), forwards.length);
  for (let k = 0; k < first; k++) actions.push(["F", ...forwards[k]]);
  const late = postponed?.(rank);
  backwards.forEach((visit, k) => {
    if (first + k < forwards.length) actions.push(["F", ...forwards[first + k]]);
    actions.push([postponed ? "I" : "B", ...visit]);
    if (k >= late) actions.push(["W", ...backwards[k - late]]);
  });
  if (postponed) for (const visit of backwards.slice(Math.max(0, backwards.length - late))) actions.push(["W", ...visit]);
  return actions;
}

// A rank's actions as they are written: each kind of action of a stage takes that stage's next micro-batch.
function line() {
  const [actions, counts, pending] = [[], {}, []];
  const count = (kind, stage) => counts[kind + stage] ?? 0;
  const add = (times, ...pattern) => {
    for (let n = 0; n < times; n++) {
      for (const [kind, stage] of pattern) {
        const counted = kind === "B" ? "I" : kind;
        const microbatch = count(counted, stage);
        counts[counted + stage] = microbatch + 1;
        actions.push([kind, stage, microbatch]);
        if (kind === "I") pending.push(["W", stage, microbatch]);
      }
    }
  };
  const addPending = () => pending.length && actions.push(pending.shift());
  return { actions, count, add, pending, addPending };
}

function zbV(p, m, rank) {
  const full = Math.max(m, 2 * p - 1);
  const [down, up] = [rank, 2 * p - 1 - rank];
  const [[Fd, Id, Wd], [Fu, Iu, Wu]] = [down, up].map((stage) => ["F", "I", "W"].map((kind) => [kind, stage]));
  const { actions, count, add } = line();
  add(2 * (p - rank) - 1, Fd);
  add(rank, Fu, Fd);
  add(p - rank, Fu, Iu, Wu);
  while (count("F", up) < full) {
    if (count("F", down) < full) add(1, Fd);
    add(1, Id, Wd, Fu, Iu, Wu);
  }
  add(rank, Id, Iu);
  add(p - rank, Id, Wd);
  add(full - count("W", up), Wu);
  add(full - count("W", down), Wd);
  return actions.filter(([, , microbatch]) => microbatch < m);
}

function dualpipeV(p, m, rank) {
  const [down, up, below] = [rank, 2 * p - 1 - rank, p - 1 - rank];
  const [[Fd, Bd, Id], [Fu, Bu, Iu]] = [down, up].map((stage) => ["F", "B", "I"].map((kind) => [kind, stage]));
  const { actions, add, pending, addPending } = line();
  add(2 * below, Fd);
  add(rank + 1, Fd, Fu);
  for (let n = 0; n < below; n++) {
    add(1, Iu);
    addPending();
    add(1, Fu);
  }
  add(m - 2 * p + rank + 1, Fd, Bu, Fu, Bd);
  add(below, Bu, Fu, Bd);
  for (let n = 0; n < 2 * (rank + 1); n++) add(1, n <= rank ? (n % 2 ? Bd : Bu) : n % 2 ? Id : Iu);
  for (let n = 0; n < below; n++) {
    addPending();
    add(1, Id);
  }
  while (pending.length) addPending();
  return actions;
}
