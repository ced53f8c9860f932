// A pipeline schedule in the page: controls, the picture, what was reached, and what each action waited for.
// All of it answers in the page; the kernel is told what was chosen and not waited for.

const HINT = "Point at a box to see what it waited for, or walk with the arrow keys. Space plays.";

// The control of a field: its label, what is written beside it, and read() and write().
function control(name, label, [low, high], schedules) {
  const shown = make("b");
  let node;
  if (name === "schedule") {
    node = make("select", {}, ...schedules.map((option) => new Option(option, option)));
  } else if (Number.isInteger(low) && low) {
    node = make("input", { type: "range", min: low, max: high, step: 1 });
  } else {
    node = make("input", { type: "number", min: low, max: high, step: "any" });
  }
  const read = () => {
    if (name === "schedule") return node.value;
    return node.valueAsNumber >= low && node.valueAsNumber <= high ? node.valueAsNumber : undefined;
  };
  const write = (value) => {
    if (read() !== value) node.value = value;
    shown.textContent = node.type === "range" ? value : "";
  };
  guarded(node).setAttribute("aria-label", label);
  return { node, read, write, item: make("label", { className: name }, label, node, ...(node.type === "range" ? [shown] : [])) };
}

function render({ model, el }) {
  const data = model.get("data");
  el.classList.add("shards-widget", "trace-widget", "schedule-widget");
  el.innerHTML = `<div class="shards"><h4></h4><div class="controls"></div><div class="controls times"><b>seconds on a rank</b></div>
    <p class="rule" role="status"></p><dl><div><dt>makespan</dt><dd></dd><dd></dd></div><div><dt>bubble: idle / work</dt><dd></dd><dd></dd></div>
    <div><dt>activations held</dt><dd></dd><dd></dd></div></dl>
    <div class="picture" tabindex="0" role="application"><svg class="shards"></svg><i class="veil"></i><i class="cursor"></i></div>
    <div class="controls"><button type="button" class="play" title="play or pause (space)">▶ play</button>
    <label>time <input type="range" class="slider" min="0" max="1000" step="any" aria-label="time"></label><span class="clock"></span></div>
    <div class="details" aria-live="polite">${HINT}</div></div>`;
  const [title, sizes, times, rule, tiles, picture, , details] = el.firstElementChild.children;
  const svg = picture.firstElementChild;
  [picture, ...el.querySelectorAll("button, input")].forEach(guarded);
  const player = new Player(el);
  const typed = new Set(); // fields with what is no number of theirs
  let [gantt, selected, width] = [null, null, 0];
  el.schedule = { player, get gantt() { return gantt; }, get selected() { return selected; } }; // for tests and for the curious

  const tell = (state) => {
    model.set("state", state);
    try {
      model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
    } catch (error) {
      console.debug("no kernel to tell", error);
    }
  };
  const fields = Object.entries(data.fields).map(([name, [label, ...range]]) => {
    const field = { name, range, label, ...control(name, label, range, data.schedules) };
    (["forward", "backward", "message"].includes(name) ? times : sizes).append(field.item);
    field.node.addEventListener("input", () => {
      const value = field.read();
      typed[value === undefined ? "add" : "delete"](field);
      if (value !== undefined) tell({ ...model.get("state"), [name]: value });
      redraw();
    });
    return field;
  });

  const select = (action, words) => {
    if (action && action === selected) return;
    selected = action;
    svg.classList.toggle("pointed", Boolean(action));
    svg.lastElementChild.innerHTML = action ? gantt.marks(action) : "";
    details.textContent = action ? describe(gantt.sim, action) : (words ?? HINT);
  };
  const paint = () => {
    gantt = new Gantt(gantt.sim, width);
    svg.setAttribute("viewBox", `0 0 ${width} ${gantt.height}`);
    svg.innerHTML = `<g>${gantt.shapes}</g><g class="marks"></g>`;
    [selected, details.textContent] = [null, HINT];
    svg.classList.remove("pointed");
    player.attach(gantt, svg);
  };
  const redraw = () => {
    const state = model.get("state");
    for (const { name, node, write, item } of fields) {
      if (![...typed].some((field) => field.name === name)) write(state[name]);
      const used = name === "v" ? state.schedule === "interleaved 1F1B" : name !== "m" || state.schedule !== "relay";
      node.disabled = !used;
      item.classList.toggle("unused", !used);
      node.setAttribute("aria-invalid", [...typed].some((field) => field.name === name));
    }
    let broken = "";
    for (const { label, range } of typed) broken = `${label} takes a number from ${range[0]} to ${range[1]}.`;
    try {
      const sim = broken ? null : simulate(state);
      width = Math.max(320, el.clientWidth);
      if (sim) gantt = { sim };
    } catch (error) {
      broken = error.message;
    }
    rule.textContent = broken && `✗ ${broken}${gantt ? " Shown is what was before." : ""}`;
    picture.classList.toggle("stale", Boolean(broken));
    el.firstElementChild.classList.toggle("empty", !gantt);
    if (broken || !gantt) return;
    paint();
    const { sim } = gantt;
    title.textContent = sim.title;
    readout(tiles, sim);
    svg.setAttribute("aria-hidden", "true");
    picture.setAttribute("aria-label", `${describeAll(sim)} ${HINT}`);
  };

  const walk = (across, along) => {
    const { ranks } = gantt.sim;
    if (!selected) return select(ranks[0][0]);
    const rank = ranks[selected.rank + across];
    if (!rank) return;
    const middle = (selected.start + selected.end) / 2;
    const away = ({ start, end }) => Math.abs((start + end) / 2 - middle);
    const to = across ? rank.reduce((a, b) => (away(b) < away(a) ? b : a)) : rank.at(along(selected.at, rank.length - 1));
    select(to);
  };
  const keys = {
    ArrowLeft: () => walk(0, (at) => Math.max(0, at - 1)), ArrowRight: () => walk(0, (at, last) => Math.min(last, at + 1)),
    ArrowUp: () => walk(-1), ArrowDown: () => walk(1), Home: () => walk(0, () => 0), End: () => walk(0, (_, last) => last),
    " ": () => player.toggle(), Escape: () => select(null),
  };
  picture.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey || !gantt) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  picture.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const zoom = width / box.width;
    const found = gantt?.at((event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom);
    if (found?.kind) select(found);
    else select(null, found ? describeGap(gantt.sim, found.rank, found.time) : HINT);
  });
  picture.addEventListener("pointerleave", () => document.activeElement === picture || select(null));
  const sizesOf = new ResizeObserver(() => {
    if (!gantt || !el.clientWidth || Math.max(320, el.clientWidth) === width) return;
    width = Math.max(320, el.clientWidth);
    paint();
  });
  sizesOf.observe(el);
  model.on("change:state", redraw);
  redraw();
  return () => {
    player.pause();
    sizesOf.disconnect();
    model.off("change:state", redraw);
  };
}

// The three results: a large number and, below it, where that comes from.
function readout(tiles, sim) {
  const formula = formulaOf(sim);
  const agrees = formula && Math.abs(formula[1] - sim.bubble) < 1e-9;
  const paper = formula && `${formula[0]} = ${short(formula[1], 4)}${agrees ? "" : `, if ${formula[2]}`}`;
  const peak = Math.max(...sim.peaks);
  const whole = sim.chunks > 1 ? `, on rank ${sim.peaks.indexOf(peak)} · ${short(peak / sim.chunks, 4)} whole micro-batches` : "";
  const texts = [
    [`${short(sim.makespan)} s`, `without bubble ${short(sim.work / sim.p)} s`],
    [short(sim.bubble, 4), `${short(sim.idle)} s / ${short(sim.work)} s${paper ? ` · formula ${paper}` : ""}`],
    [`at most ${peak}`, whole ? `of ${sim.m * sim.chunks}${whole}` : `of ${sim.m} stage activations, on rank ${sim.peaks.indexOf(peak)}`],
  ];
  texts.forEach(([large, small], k) => {
    const [, value, from] = tiles.children[k].children;
    [value.textContent, from.textContent] = [large, small];
  });
}

export default { render };
