// A collective, step by step. The moves come from Python; what every rank holds follows from them here.

const SVG = "http://www.w3.org/2000/svg";
const SUMS = ["reduce", "reduce_scatter", "all_reduce"];
const letter = (rank) => String.fromCharCode(97 + rank);

// What every rank holds at the start and after each step: a Map from chunk to the sorted ranks that are in it.
export function states({ start, steps }) {
  const found = [start.map((held) => new Map(held.map(([chunk, ...ranks]) => [chunk, ranks])))];
  for (const step of steps) {
    const [now, after] = [found.at(-1), found.at(-1).map((held) => new Map(held))];
    for (const [src, dst, chunk, combine] of step) {
      const mine = combine ? (after[dst].get(chunk) ?? []) : [];
      after[dst].set(chunk, [...mine, ...now[src].get(chunk)].sort((a, b) => a - b));
    }
    found.push(after);
  }
  return found;
}

export function label(ranks, part, n) {
  const name = (rank) => letter(rank) + (part ?? "");
  if (ranks.length === n && n > 1) return `Σ${part ?? ""}`;
  if (ranks.length >= 3) {
    const starts = ranks.filter((rank) => !ranks.includes((rank + n - 1) % n));
    if (starts.length === 1) return `${name(starts[0])}…${name((starts[0] + ranks.length - 1) % n)}`;
  }
  return ranks.map(name).join("+");
}

export function slotOf(operation, chunk, rank, n, begun) {
  if (operation !== "all_to_all") return chunk;
  const [src, dst] = [Math.floor(chunk / n), chunk % n];
  if (begun) return dst === rank ? src : null;
  return src === rank ? dst : null;
}

export function partOf(operation, slots, chunk, n) {
  if (slots === 1 || operation === "gather" || operation === "all_gather") return null;
  return operation === "all_to_all" ? chunk % n : chunk;
}

const make = (tag, attributes = {}, ...content) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...content);
  return node;
};

// The stage: places of the cells for one choice of operation, algorithm and world size.
class Stage {
  constructor(operation, choice, n) {
    Object.assign(this, { operation, choice, n, states: states(choice) });
    this.tall = 27;
    this.width = Math.min(104, (776 - 22 * (n - 1)) / n);
    this.between = n > 1 ? Math.min(64, (776 - n * this.width) / (n - 1)) : 0;
    this.gap = choice.slots === 1 ? 40 : 13;
    this.top = choice.slots === 1 ? 74 : 46;
    this.left = (800 - n * this.width - (n - 1) * this.between) / 2;
    this.height = this.top + choice.slots * (this.tall + this.gap) + 4;
  }

  x(rank) {
    return this.left + rank * (this.width + this.between);
  }

  y(slot) {
    return this.top + slot * (this.tall + this.gap);
  }

  color(chunk) {
    return `fill r${(this.operation === "all_to_all" ? Math.floor(chunk / this.n) : chunk) % 8}`;
  }

  share(ranks) {
    return SUMS.includes(this.operation) ? ranks.length / this.n : 1;
  }

  text(chunk, ranks) {
    return label(ranks, partOf(this.operation, this.choice.slots, chunk, this.n), this.n);
  }

  isFinal(rank, chunk, ranks, k) {
    return k > 0 && this.choice.goal[rank].includes(chunk) && (!SUMS.includes(this.operation) || ranks.length === this.n);
  }

  // The picture after step k; `hidden` are the moves whose arrival is still to come.
  draw(svg, k, arriving = []) {
    const before = this.states[Math.max(0, k - 1)];
    const held = this.states[k].map((chunks, rank) => {
      const shown = new Map(chunks);
      for (const [, dst, chunk] of arriving) {
        if (dst !== rank) continue;
        if (before[dst].has(chunk)) shown.set(chunk, before[dst].get(chunk));
        else shown.delete(chunk);
      }
      return shown;
    });
    svg.setAttribute("viewBox", `0 0 800 ${this.height}`);
    svg.replaceChildren(marker());
    const labels = make("g", { class: "chunk" });
    for (let rank = 0; rank < this.n; rank++) {
      const middle = this.x(rank) + this.width / 2;
      const head = this.top - (this.choice.slots === 1 ? 36 : 17);
      svg.append(make("text", { x: middle, y: head, class: "mid caption" }, `rank ${rank}`));
      for (let slot = 0; slot < this.choice.slots; slot++) svg.append(this.box(rank, slot, 1, "cell"));
      for (const [chunk, ranks] of held[rank]) {
        const slot = slotOf(this.operation, chunk, rank, this.n, k > 0);
        if (slot === null) continue;
        svg.append(this.box(rank, slot, this.share(ranks), this.color(chunk)));
        const done = this.isFinal(rank, chunk, ranks, k);
        if (done) labels.append(this.box(rank, slot, 1, "goal"));
        labels.append(make("text", { x: middle, y: this.y(slot) + 18, class: done ? "mid done" : "mid" }, this.text(chunk, ranks)));
      }
    }
    const arrows = make("g", { class: "arrows" });
    if (k && this.operation !== "all_to_all") for (const move of this.choice.steps[k - 1]) arrows.append(make("path", { d: this.arrow(move) }));
    svg.append(labels, arrows);
  }

  box(rank, slot, share, kind) {
    return make("rect", { x: this.x(rank), y: this.y(slot), width: this.width * share, height: this.tall, class: kind });
  }

  arrow([src, dst, chunk]) {
    const slot = slotOf(this.operation, chunk, dst, this.n, true);
    const [a, b, y] = [this.x(src), this.x(dst), this.y(slot)];
    const [right, single] = [b > a ? 1 : -1, this.choice.slots === 1];
    if (Math.abs(dst - src) === 1) {
      return `M${b > a ? a + this.width : a} ${y + this.tall / 2 + (single ? 5 * right : 0)}h${right * this.between}`;
    }
    const edge = b > a ? y + this.tall : y;
    const deep = edge + right * (single ? 22 + 8 * (src % 3) : 14);
    const [start, stop] = [a + this.width * (0.5 + 0.1 * right), b + this.width * (0.5 - 0.1 * right)];
    return `M${start} ${edge}C${start} ${deep} ${stop} ${deep} ${stop} ${edge}`;
  }

  // The messages of step k under way: a copy of each chunk flies from its sender to its receiver.
  fly(svg, k, duration) {
    const before = this.states[k - 1];
    return this.choice.steps[k - 1].map(([src, dst, chunk]) => {
      const ranks = before[src].get(chunk);
      const from = [this.x(src), this.y(slotOf(this.operation, chunk, src, this.n, this.operation !== "all_to_all"))];
      const to = [this.x(dst), this.y(slotOf(this.operation, chunk, dst, this.n, true))];
      const size = { width: this.width, height: this.tall, rx: 4 };
      const chip = make("g", { class: "chip" },
        make("rect", size), make("rect", { ...size, width: this.width * this.share(ranks), class: this.color(chunk) }),
        make("text", { x: this.width / 2, y: 18, class: "mid" }, this.text(chunk, ranks)));
      svg.append(chip);
      const at = ([x, y]) => ({ transform: `translate(${x}px, ${y}px)` });
      return chip.animate([at(from), at(to)], { duration, easing: "ease-in-out", fill: "both" });
    });
  }

  say(k) {
    const { steps, caption } = this.choice;
    if (!k) return `${caption}. Start: what every rank holds before the first message.`;
    const step = steps[k - 1];
    const before = this.states[k - 1];
    const shown = step.slice(0, 12).map(([src, dst, chunk]) => `${src}→${dst} ${this.text(chunk, before[src].get(chunk))}`);
    const more = step.length > 12 ? ` and ${step.length - 12} more` : "";
    const adds = step.some((move) => move[3]) ? " · receivers add" : "";
    return `Step ${k} of ${steps.length}: ${shown.join(", ")}${more}${adds}${k === steps.length ? " · done" : ""}`;
  }
}

const marker = () => make("defs", {}, make("marker",
  { id: "head", viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 5, markerHeight: 5, orient: "auto" },
  make("path", { d: "M0 0L6 3L0 6z", class: "tip" })));

const legend = (operation) =>
  `a: from rank 0, b: from rank 1, …${SUMS.includes(operation) ? "; Σ: of all, the fill: how many ranks are in it" : ""}; thick frame: promised by ${operation}`;

function render({ model, el }) {
  const [data, operation] = [model.get("data"), model.get("operation")];
  el.classList.add("shards-widget", "trace-widget", "collective-widget");
  el.innerHTML = `<div class="shards"><h4></h4><p></p><div class="controls"></div>
    <div class="picture" tabindex="0" role="group" data-lm-suppress-shortcuts="true"></div><div class="details" aria-live="polite"></div></div>`;
  const [head, note, controls, picture, details] = el.firstElementChild.children;
  const svg = make("svg", { class: "shards stage", role: "img" });
  picture.append(svg);
  note.textContent = legend(operation);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let [stage, k, playing, timer, flights] = [null, 0, false, 0, []];

  const guarded = (node) => {
    node.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab takes the keys
    return node;
  };
  const button = (text, title, act) => {
    const node = guarded(Object.assign(document.createElement("button"), { type: "button", textContent: text, title }));
    node.setAttribute("aria-label", title);
    node.addEventListener("click", act);
    return node;
  };
  const labelled = (text, node) => {
    const holder = document.createElement("label");
    holder.append(text, guarded(node));
    return holder;
  };
  const select = (options, name) => {
    const node = document.createElement("select");
    for (const option of options) node.add(new Option(option.replaceAll("_", " + "), option));
    node.addEventListener("change", () => {
      model.set(name, name === "world_size" ? Number(node.value) : node.value);
      try {
        model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
      } catch (error) {
        console.debug("no kernel to tell", error);
      }
    });
    return node;
  };
  const algorithms = select(Object.keys(data), "algorithm");
  const sizes = select(Object.keys(Object.values(data)[0]), "world_size");
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, step: 1 });
  const position = Object.assign(document.createElement("span"), { className: "position" });
  const play = button("▶ play", "play or pause (space)", () => toggle());
  const buttons = document.createElement("span");
  buttons.append(button("◀", "step back (←)", () => by(-1)), play, button("▶", "step forward (→)", () => by(1)));
  controls.append(buttons, labelled("step", slider), position);
  if (Object.keys(data).length > 1) controls.append(labelled("algorithm", algorithms));
  controls.append(labelled("world size", sizes));
  slider.addEventListener("input", () => (stop(), go(Number(slider.value))));

  const land = () => {
    for (const flight of flights.splice(0)) flight.cancel();
  };
  const go = (to, moving = false) => {
    land();
    k = Math.min(Math.max(0, to), stage.choice.steps.length);
    slider.value = k;
    slider.setAttribute("aria-valuetext", stage.say(k));
    position.textContent = k ? `step ${k} of ${stage.choice.steps.length}` : `start, ${stage.choice.steps.length} to come`;
    details.textContent = stage.say(k);
    svg.setAttribute("aria-label", stage.say(k));
    if (!moving || !k || calm.matches) return stage.draw(svg, k);
    stage.draw(svg, k, stage.choice.steps[k - 1]);
    flights = stage.fly(svg, k, 800);
    const mine = flights;
    Promise.all(mine.map((flight) => flight.finished)).then(() => mine === flights && (land(), stage.draw(svg, k)), () => {});
  };
  const by = (step) => {
    stop();
    go(k + step, step > 0 && k < stage.choice.steps.length);
  };
  const stop = () => {
    playing = false;
    clearTimeout(timer);
    play.textContent = "▶ play";
  };
  const tick = () => {
    if (k >= stage.choice.steps.length) return stop();
    go(k + 1, true);
    timer = setTimeout(tick, 1500);
  };
  const toggle = () => {
    if (playing) return stop();
    playing = true;
    play.textContent = "❚❚ pause";
    if (k >= stage.choice.steps.length) go(0);
    timer = setTimeout(tick, k ? 0 : 300);
  };
  const keys = { ArrowRight: () => by(1), ArrowLeft: () => by(-1), " ": toggle, Home: () => (stop(), go(0)), End: () => (stop(), go(Infinity)) };
  picture.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });

  const choose = () => {
    stop();
    const [algorithm, n] = [model.get("algorithm"), model.get("world_size")];
    [algorithms.value, sizes.value] = [algorithm, n];
    stage = new Stage(operation, data[algorithm][n], n);
    head.textContent = stage.choice.caption;
    picture.setAttribute("aria-label", `${stage.choice.caption}. Arrow keys step, space plays.`);
    slider.max = stage.choice.steps.length;
    go(0);
  };
  const events = "change:algorithm change:world_size";
  model.on(events, choose);
  choose();
  return () => {
    stop();
    land();
    model.off(events, choose);
  };
}

export default { render };
