// The sharding widget: the picture that Python drew, redrawn in the page for another world size or placement.
// Python computes the splits, the notes and the geometry; this file looks them up and moves what is already there.

const rankText = (ranks) =>
  ranks.length > 1 && ranks.at(-1) - ranks[0] === ranks.length - 1
    ? `${ranks[0]}–${ranks.at(-1)}`
    : ranks.join(",") || "–";

const bytesText = (n) => {
  if (n < 1000) return `${n} bytes`;
  const [unit, name] = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([unit]) => n >= unit);
  const tenths = Math.floor((10 * n + unit / 2) / unit);
  return `${Math.floor(tenths / 10)}.${tenths % 10} ${name}`;
};

const { format } = new Intl.NumberFormat("en-US");
const exactBytes = (n) => `${format(n)} ${n === 1 ? "byte" : "bytes"}`;
const size = (region) => region.reduce((n, [start, stop]) => n * (stop - start), 1);
const isFull = ([start, stop], length) => start === 0 && stop === length;
const sliceText = (region, shape) =>
  `[${region.map((range, d) => (isFull(range, shape[d]) ? ":" : range.join(":"))).join(", ")}]`;

// What rank r holds of tensor t: found in a run, or looked up in the splits that Python computed.
function holding(data, n, placement, t, r) {
  const { shape, itemsize } = data.tensors[t];
  if (data.regions) return { region: data.regions[t][r], nbytes: data.nbytes[t][r] };
  const dim = placement.startsWith("shard dim ") ? Number(placement.slice(10)) : -1;
  const region = shape.map((length, d) => {
    const bounds = data.splits[length][n - 1];
    return d === dim ? [bounds[r], bounds[r + 1]] : [0, length];
  });
  return { region, nbytes: size(region) * itemsize };
}

function heldText({ region, nbytes }, shape) {
  if (!region) return nbytes ? "not a shard of it" : "absent";
  return size(region) || !size(shape.map((length) => [0, length])) ? sliceText(region, shape) : "nothing";
}

function shortRange({ region }, shape) {
  if (!size(region)) return "–";
  return region.filter((range, d) => !isFull(range, shape[d])).map((range) => range.join(":")).join(",") || "all";
}

function owners(data, n, placement, index) {
  const ranks = [];
  for (let r = 0; r < n; r++) {
    const { region } = holding(data, n, placement, 0, r);
    if (region?.every(([start, stop], d) => start <= index[d] && index[d] < stop)) ranks.push(r);
  }
  return ranks;
}

const indexOf = (cell, data) => cell.dataset.at.split(",").map(Number).slice(-data.tensors[0].shape.length);
const move = (node, attributes) => Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
const show = (node, visible) => node.setAttribute("display", visible ? "inline" : "none");
const isShown = (node) => node.getAttribute("display") !== "none";

function updatePanel(panel, data, n, placement) {
  const [t, r] = [Number(panel.dataset.t), Number(panel.dataset.r)];
  show(panel, r < n);
  if (r >= n) return;
  const { shape, axes } = data.tensors[t];
  const held = holding(data, n, placement, t, r);
  const [box, inner] = panel.querySelectorAll("rect");
  const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(box.getAttribute(name)));
  const [[top, bottom], [left, right]] = axes.map((dim) =>
    dim === null || !shape[dim] ? [0, 1] : held.region[dim].map((i) => i / shape[dim]));
  const some = size(held.region) ? 1 : 0;
  move(inner, {
    x: x + left * width, y: y + top * height,
    width: some * (right - left) * width, height: some * (bottom - top) * height,
  });
  const [range, amount] = panel.querySelectorAll(".range, .amount");
  range.textContent = amount ? heldText(held, shape) : shortRange(held, shape);
  if (amount) amount.textContent = bytesText(held.nbytes);
}

function updateMemory(svg, rankBytes, n) {
  const copy = svg.querySelector(".copy");
  const [scale, x0] = [Number(copy.dataset.scale), Number(copy.getAttribute("x"))];
  let x = x0;
  svg.querySelectorAll(".bar").forEach((bar, r) => {
    const width = r < n ? rankBytes[r] * scale : 0;
    move(bar.querySelector("rect"), { x, width });
    const label = bar.querySelector("text");
    label.setAttribute("x", x + width / 2);
    label.textContent = width >= 8 ? r : "";
    x += width;
  });
  svg.querySelector(".total").setAttribute("x", x + 8);
}

// Make the picture that of n ranks under a placement.
export function update(svg, data, n, placement) {
  const { notes, total, rankBytes } = data.summaries[`${n}|${placement}`];
  svg.querySelectorAll(".note").forEach((note, i) => (note.textContent = notes[i]));
  for (const value of svg.querySelectorAll(".value")) {
    const ranks = owners(data, n, placement, indexOf(value, data));
    const owner = ranks.length === 1 ? `r${ranks[0]}` : !ranks.length ? "none" : ranks.length === n ? "all" : "some";
    value.setAttribute("class", `value cell ${owner}`);
    value.querySelector("text").textContent = rankText(ranks);
  }
  for (const panel of svg.querySelectorAll(".panel")) updatePanel(panel, data, n, placement);
  for (const label of svg.querySelectorAll("text.rank[data-r]")) {
    const r = Number(label.dataset.r);
    show(label, r < n);
    if (label.classList.contains("sum")) label.textContent = r < n ? bytesText(rankBytes[r]) : "";
  }
  updateMemory(svg, rankBytes, n);
  svg.querySelector(".total").textContent = total;
}

const ranksOf = (cell, data, n, placement) =>
  cell.dataset.r ? [Number(cell.dataset.r)] : owners(data, n, placement, indexOf(cell, data));

// The details line of a cell.
function describe(cell, data, n, placement) {
  const ranks = ranksOf(cell, data, n, placement);
  const { name, shape, itemsize } = data.tensors[Number(cell.dataset.t ?? 0)];
  if (cell.dataset.r) {
    const held = holding(data, n, placement, Number(cell.dataset.t), ranks[0]);
    if (!held.region) return `rank ${ranks[0]} · ${name}: ${heldText(held, shape)} · ${exactBytes(held.nbytes)}`;
    const whole = size(shape.map((length) => [0, length]));
    const count = `${format(size(held.region))} of ${format(whole)} values`;
    return `rank ${ranks[0]} · ${name} ${heldText(held, shape)} · ${count} · ${exactBytes(held.nbytes)}`;
  }
  const where = `${name}[${indexOf(cell, data).join(", ")}] · ${exactBytes(itemsize)}`;
  if (!ranks.length) return `${where} · on no rank`;
  const held = holding(data, n, placement, 0, ranks[0]);
  if (ranks.length === 1) {
    return `${where} · on rank ${ranks[0]}, which holds ${sliceText(held.region, shape)}: ${exactBytes(held.nbytes)}`;
  }
  return `${where} · on ranks ${rankText(ranks)}: ${exactBytes(itemsize * ranks.length)} together`;
}

const HINT = "Point at a cell, or move there with Tab and the arrow keys, to see its index range, rank and bytes.";
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function control(label, options, value) {
  const holder = document.createElement("label");
  const select = document.createElement("select");
  select.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab takes the arrow keys
  for (const option of options) select.add(new Option(option, option, false, String(option) === String(value)));
  holder.append(label, select);
  return [holder, select];
}

function render({ model, el }) {
  const data = model.get("data");
  el.classList.add("shards-widget");
  el.innerHTML = `<div class="controls"></div><div class="picture">${model.get("picture")}</div>
    <div class="details">${HINT}</div><div class="status" role="status"></div>`;
  const [controls, picture, details, status] = [...el.children];
  const svg = picture.firstElementChild;
  const state = () => [model.get("world_size"), model.get("placement")];
  const cells = [...svg.querySelectorAll(".cell")];
  const grids = [".value", ".panel"].map((kind) => cells.filter((cell) => cell.matches(kind)));
  svg.setAttribute("role", "group"); // role=img would hide the cells from a screen reader
  svg.setAttribute("aria-label", svg.querySelector("title").textContent);
  svg.querySelector("title").remove(); // else the browser shows it as a tooltip over every cell
  for (const cell of cells) move(cell, { role: "img", tabindex: -1, "data-lm-suppress-shortcuts": "true" });
  for (const grid of grids) grid[0]?.setAttribute("tabindex", 0);

  const point = (cell) => {
    const ranks = cell && ranksOf(cell, data, ...state());
    details.textContent = cell ? describe(cell, data, ...state()) : HINT;
    for (const other of cells) {
      const mine = !cell || cell === other || ranksOf(other, data, ...state()).some((r) => ranks.includes(r));
      other.classList.toggle("faded", !mine);
      other.classList.toggle("shown", other === cell);
    }
  };
  const focused = () => (svg.contains(document.activeElement) ? document.activeElement.closest(".cell") : null);
  // Chromium puts an svg that listens to focus into the tab order, so the box around it listens.
  picture.addEventListener("pointerover", (event) => point(event.target.closest(".cell") ?? focused()));
  picture.addEventListener("pointerleave", () => point(focused()));
  picture.addEventListener("focusin", (event) => point(event.target.closest(".cell")));
  picture.addEventListener("focusout", () => point(null));
  picture.addEventListener("keydown", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell || !(event.key in STEPS)) return;
    event.preventDefault();
    const grid = grids.find((cells) => cells.includes(cell));
    const [y, x] = cell.dataset.at.split(",").map((i, axis) => Number(i) + STEPS[event.key][axis]);
    const next = grid.find((other) => other.dataset.at === `${y},${x}` && isShown(other));
    if (!next) return;
    cell.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });

  const redraw = () => {
    const [n, placement] = state();
    if (!data.regions) {
      update(svg, data, n, placement);
      status.textContent = data.summaries[`${n}|${placement}`].notes.join(" ");
      for (const [name, select] of Object.entries(selects)) select.value = model.get(name);
    }
    for (const grid of grids) { // a rank that is gone cannot keep the place in the tab order
      const stop = grid.find((cell) => cell.tabIndex === 0);
      if (stop && !isShown(stop)) {
        stop.setAttribute("tabindex", -1);
        grid[0].setAttribute("tabindex", 0);
      }
    }
    for (const cell of cells) {
      cell.setAttribute("aria-label", isShown(cell) ? describe(cell, data, n, placement) : "");
    }
    point(focused());
  };
  const selects = {};
  for (const [name, { label, options }] of Object.entries(data.controls)) {
    const [holder, select] = control(label, options, model.get(name));
    selects[name] = select;
    controls.append(holder);
    select.addEventListener("change", () => {
      model.set(name, name === "world_size" ? Number(select.value) : select.value);
      try {
        model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
      } catch (error) {
        console.debug("no kernel to tell", error);
      }
    });
  }
  controls.hidden = !Object.keys(selects).length;
  model.on("change:world_size change:placement", redraw);
  redraw();
  return () => model.off("change:world_size change:placement", redraw);
}

export default { render };
