// The mesh explorer in the page: sizes to change, a map of all ranks, and what the chosen rank talks to, sends and holds.
// All of it answers in the page; the kernel is told what was chosen and not waited for.

const HINT = "Click a rank, or walk: arrows to the cells beside; t, c, d, p along an axis (with shift back); Home and End.";
const HEADS = ["group", "ranks", "on nodes", "neighbours, over links", "sent in one step", "takes"];
const WORDS = { tp: "tensor parallel", cp: "context parallel", dp: "data parallel", pp: "pipeline", ends: "first and last stage, which share the embedding" };
const STEPS = { t: "tp", c: "cp", d: "dp", p: "pp" };
const WIDTH = 760;

// The control of a field: read() is undefined for what it does not take.
function control(name, [label, low, high], orders) {
  const node = guarded(name === "order" ? make("select") : make("input", { type: "number", min: low, max: high, step: 1 }));
  for (const order of name === "order" ? orders : []) node.add(new Option(order.split(" ").join(" · "), order));
  const read = () => {
    if (name === "order") return node.value;
    const number = node.valueAsNumber;
    return Number.isInteger(number) && number >= low && number <= high ? number : undefined;
  };
  node.setAttribute("aria-label", label);
  return { name, node, label, low, high, read, item: make("label", { className: `field ${name}-field` }, label, node) };
}

function render({ model, el }) {
  const data = model.get("data");
  el.classList.add("shards-widget", "trace-widget", "mesh-widget");
  el.innerHTML = `<div class="shards"><div class="controls"></div><h4></h4><p class="rule" role="status"></p>
    <div class="picture" tabindex="0" role="application"><svg class="shards" aria-hidden="true"><g></g><g></g></svg></div>
    <p class="hint">${HINT}</p>
    <div class="details" aria-live="polite"><b></b></div>
    <div class="wide"><table><caption></caption><thead><tr>${HEADS.map((head) => `<th scope="col">${head}</th>`).join("")}</tr></thead><tbody></tbody></table></div>
    <ul></ul></div>`;
  const [controls, head, rule, picture, hint, details, { firstElementChild: table }, list] = el.firstElementChild.children;
  const svg = guarded(picture).firstElementChild;
  const [cells, marks] = svg.children;
  const typed = new Set(); // fields with what is no number of theirs
  let [map, drawn] = [null, ""];
  el.mesh = { get map() { return map; } }; // for tests and for the curious

  const tell = (change) => {
    model.set("state", { ...model.get("state"), ...change });
    try {
      model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
    } catch (error) {
      console.debug("no kernel to tell", error);
    }
  };
  const fields = Object.entries(data.fields).map(([name, range]) => {
    const field = control(name, range, data.orders);
    controls.append(field.item);
    field.node.addEventListener("input", () => {
      const value = field.read();
      typed[value === undefined ? "add" : "delete"](field);
      if (value === undefined) return redraw();
      const state = { ...model.get("state"), [name]: value };
      // a smaller mesh has fewer ranks, a larger one than there is room for keeps the rank for later
      if (name !== "rank" && !sizeRule(state)) state.rank = Math.min(state.rank, worldSize(state) - 1);
      tell(state);
      redraw();
    });
    return field;
  });

  const brokenRule = (state) => {
    for (const { label, low, high } of typed) return `${label} takes a whole number from ${low} to ${whole(high)}.`;
    const outside = !sizeRule(state) && state.rank >= worldSize(state);
    return outside ? `rank ${state.rank} is not in a world of ${worldSize(state)}: ranks go from 0 to ${worldSize(state) - 1}.` : sizeRule(state);
  };
  const redraw = () => {
    const state = model.get("state");
    for (const field of fields) {
      if (!typed.has(field) && field.read() !== state[field.name]) field.node.value = state[field.name];
      field.node.setAttribute("aria-invalid", typed.has(field));
    }
    const broken = brokenRule(state);
    rule.textContent = broken && `✗ ${broken}${map ? " Shown is what was before." : ""}`;
    picture.classList.toggle("stale", Boolean(broken));
    if (broken) return;
    const key = JSON.stringify({ ...state, rank: 0 });
    if (key !== drawn) {
      map = new Map2D(state, WIDTH);
      svg.setAttribute("viewBox", `-3 -3 ${WIDTH + 6} ${map.height + 4}`);
      cells.innerHTML = map.cells;
      drawn = key;
      head.textContent = title(state);
    }
    marks.innerHTML = map.marks(state.rank);
    details.firstElementChild.textContent = place(state, state.rank);
    table.tBodies[0].replaceChildren(...groupRows(data, state).map(row));
    table.caption.textContent = `Groups of rank ${state.rank}`;
    list.replaceChildren(...holdings(data, state).map((line) => make("li", { textContent: line })));
    picture.setAttribute("aria-label", `${describe(data, state)}\n${HINT}`);
  };

  const choose = (rank) => {
    const state = model.get("state");
    if (rank === null || rank < 0 || rank >= worldSize(state) || rank === state.rank || brokenRule(state)) return;
    tell({ rank });
    redraw();
  };
  const vertical = (step) => {
    const [x, y] = map.corner(model.get("state").rank);
    for (let away = map.size; away < map.height; away += map.size / 2) {
      const found = map.at(x + 1, y + 1 + step * away);
      if (found !== null && found !== model.get("state").rank) return found;
    }
    return null;
  };
  const along = (axis, step) => {
    const state = model.get("state");
    const ranks = group(state, state.rank, axis);
    return ranks[(ranks.indexOf(state.rank) + step + ranks.length) % ranks.length];
  };
  const keys = {
    ArrowLeft: (rank) => rank - 1, ArrowRight: (rank) => rank + 1, ArrowUp: () => vertical(-1), ArrowDown: () => vertical(1),
    Home: () => 0, End: () => worldSize(model.get("state")) - 1,
  };
  picture.addEventListener("keydown", (event) => {
    const axis = STEPS[event.key.toLowerCase()];
    if ((!(event.key in keys) && !axis) || event.ctrlKey || event.metaKey || event.altKey || !map) return;
    event.preventDefault();
    event.stopPropagation();
    choose(axis ? along(axis, event.shiftKey ? -1 : 1) : keys[event.key](model.get("state").rank));
  });
  const under = (event) => {
    const box = svg.getBoundingClientRect();
    const zoom = (WIDTH + 6) / box.width;
    return map?.at((event.clientX - box.left) * zoom - 3, (event.clientY - box.top) * zoom - 3) ?? null;
  };
  picture.addEventListener("click", (event) => choose(under(event)));
  picture.addEventListener("pointermove", (event) => {
    const rank = under(event);
    picture.classList.toggle("over", rank !== null);
    hint.textContent = rank === null ? HINT : `Under the pointer: ${place(map.state, rank)}. Click to choose it.`;
  });
  picture.addEventListener("pointerleave", () => (hint.textContent = HINT));
  model.on("change:state", redraw);
  redraw();
  return () => model.off("change:state", redraw);
}

// A row of the table: the group's sign and name, and what is said of it.
function row([axis, ...texts]) {
  const sign = `<svg class="shards sign" viewBox="0 0 14 14" aria-hidden="true">${axis === "ends" ? "" : `<path d="${shape(axis, 1.5, 1.5, 11)}" class="mark ${axis}"/>`}</svg>`;
  const first = make("th", { scope: "row", title: WORDS[axis], innerHTML: `${sign}${axis}` });
  return make("tr", {}, first, ...texts.map((text) => make("td", { textContent: text })));
}

export default { render };
