// The planner explorer in the page: filters, a mark a candidate, and what there is to say of the chosen one.
// All of it answers in the page; the kernel is told what was chosen and not waited for.

const HINT = "Click a mark, or walk: ↑ slower, ↓ faster, ← less memory, → more; Home the best, End the slowest. The thick ring is around the chosen one.";
const NEAR = 14; // so many pixels from a mark a click still means it

// Where a mark is, to a tenth of a pixel.
export function place({ plot }, { held, total }) {
  const x = plot.left + ((plot.right - plot.left) * held) / plot.xHigh;
  const y = plot.bottom - ((plot.bottom - plot.top) * (Math.log10(total) - plot.yLow)) / (plot.yHigh - plot.yLow);
  return [x, y].map((value) => Math.floor(10 * value + 0.5) / 10);
}

// What a choice leaves, a path for each limit; dots for the rest; rings around the best that is left and the chosen one.
export function live(data, marks, left, chosen) {
  const kept = new Set(left);
  const dots = marks.filter((mark) => !kept.has(mark)).map(({ at: [x, y] }) => `M${x} ${y}h0`).join("");
  const parts = dots ? [`<path d="${dots}" class="plan-others"/>`] : [];
  data.shapes.forEach((shape, limit) => {
    const path = left.filter((mark) => mark.limit === limit).map(({ at: [x, y] }) => `M${x} ${y}${shape}`).join("");
    if (path) parts.push(`<path d="${path}" class="plan-mark plan-${limit}"/>`);
  });
  if (chosen) {
    const [[x, y], [u, v]] = [chosen.at, left[0].at];
    parts.push(`<path d="M${data.plot.left} ${y}H${x}V${data.plot.bottom}" class="plan-drop"/>`);
    parts.push(`<circle cx="${x}" cy="${y}" r="6.5" class="plan-chosen"/><circle cx="${u}" cy="${v}" r="9.5" class="plan-best"/>`);
    parts.push(`<text x="${u}" y="${v + 23}" class="caption mid">${left[0].rank === 1 ? "best" : "best of these"}</text>`);
  }
  return parts.join("");
}

// A table of parts, each with a bar that starts where the one before ends; and beside it the best candidate's, if that is another.
function table(caption, names, [mine, best], [sum, bestSum], scale, say, sign, kind) {
  const rows = [...names.map((name, i) => [name, mine[i], best[i]]), ["together", sum, bestSum]];
  const signed = (gap) => (gap ? `${gap > 0 ? "+" : "−"}${say(Math.abs(gap))}` : "0");
  let start = 0;
  const body = rows.map(([name, size, other], i) => {
    const last = i === names.length;
    const bar = `<svg viewBox="0 0 100 12" preserveAspectRatio="none" class="shards" aria-hidden="true"><rect class="room" width="100" height="12"/>
      <rect class="${kind(i, last)}" x="${last ? 0 : (100 * start) / scale}" width="${(100 * size) / scale}" y="1" height="10"/></svg>`;
    start += size;
    const numbers = [say(size), ...(mine === best ? ["", ""] : [say(other), signed(size - other)])];
    const head = make("th", { scope: "row", innerHTML: last ? "" : sign(i) }, name);
    const row = make("tr", { className: last ? "sum" : "" }, head, make("td", { className: "share", innerHTML: bar }));
    row.append(...numbers.map((textContent) => make("td", { textContent })));
    return row;
  });
  const heads = ["this one", ...(mine === best ? ["", ""] : ["the best", "difference"])].map((textContent) => make(textContent ? "th" : "td", { textContent }));
  const top = make("thead", {}, make("tr", {}, make("td", { className: "part" }), make("td", { className: "share" }), ...heads));
  return make("table", {}, make("caption", { textContent: caption }), top, make("tbody", {}, ...body));
}

function render({ model, el }) {
  const data = model.get("data");
  const marks = marksOf(data);
  el.classList.add("shards-widget", "trace-widget", "planner-widget");
  el.innerHTML = `<div class="shards"><h4></h4><p class="counts"></p><div class="controls"></div><p class="left" role="status"></p>
    <div class="picture" tabindex="0" role="application">${model.get("picture")}</div><p class="hint">${HINT}</p>
    <div class="details" aria-live="polite"></div><div class="tables"></div></div>`;
  const [head, counts, controls, leftLine, picture, hint, details, tables] = el.firstElementChild.children;
  [head.textContent, counts.textContent] = [data.title, data.counts];
  if (!marks.length) {
    for (const node of [controls, leftLine, picture, hint, details, tables]) node.remove();
    return undefined;
  }
  const svg = guarded(picture).firstElementChild;
  const group = svg.querySelector(".live");
  svg.querySelector("title").remove(); // else the browser shows it as a tooltip
  svg.querySelector("desc").remove();
  svg.setAttribute("aria-hidden", "true");
  for (const mark of marks) mark.at = place(data, mark);
  let left = marks;

  const tell = (change) => {
    model.set("state", { ...model.get("state"), ...change });
    try {
      model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
    } catch (error) {
      console.debug("no kernel to tell", error);
    }
  };
  const selects = data.filters.map(([name, label, options]) => {
    const values = [data.any, ...options];
    const node = guarded(make("select"));
    node.setAttribute("aria-label", label);
    const said = { true: "yes", false: "no" };
    values.forEach((value, i) => node.add(new Option(said[value] ?? value, i)));
    node.addEventListener("change", () => tell({ [name]: values[node.value], mark: 0 }));
    controls.append(make("label", {}, label, node));
    return { name, node, values };
  });
  const all = guarded(make("button", { type: "button", textContent: "all again" }));
  all.addEventListener("click", () => tell({ ...Object.fromEntries(selects.map(({ name }) => [name, data.any])), mark: 0 }));
  controls.append(all);

  const redraw = () => {
    const state = model.get("state");
    for (const { name, node, values } of selects) node.value = values.indexOf(state[name]);
    all.disabled = selects.every(({ name }) => state[name] === data.any);
    left = leftOf(data, marks, state);
    const mark = chosenOf(left, state);
    group.innerHTML = live(data, marks, left, mark);
    leftLine.textContent = leftText(data, marks, left);
    picture.setAttribute("aria-label", `${describe(data, marks, state)}\n${HINT}`);
    const [first, ...rest] = mark ? words(data, marks, mark) : ["Nothing is left to show."];
    details.replaceChildren(make("b", { textContent: first }), ...rest.map((line) => make("p", { textContent: line })));
    tables.replaceChildren(...(mark ? both(mark) : []));
  };
  const both = (mark) => {
    const best = marks[0];
    const shape = (i) => `<svg class="shards sign" viewBox="-6 -6 12 12" aria-hidden="true"><path d="M0 0${data.shapes[i]}" class="plan-${i}"/></svg>`;
    const seconds = table("Time of the step", data.parts, [mark.seconds, best.seconds], [mark.total, best.total], mark.total,
      (units) => (units ? time(data, units) : "0"), shape, (i, last) => (last ? "held" : `plan-${i}`));
    const caption = `GB on the fullest GPU, which has room for ${data.room}`;
    const memory = table(caption, data.kinds, [mark.memory, best.memory], [mark.held, best.held], data.limit,
      (units) => (units ? gb(data, units) : "0"), () => "", () => "held");
    return [seconds, memory];
  };

  const choose = (mark) => {
    if (mark && mark.rank !== chosenOf(left, model.get("state")).rank) tell({ mark: mark.rank });
  };
  const byMemory = () => [...left].sort((a, b) => a.held - b.held || a.rank - b.rank);
  const beside = (list, step) => list[list.indexOf(chosenOf(left, model.get("state"))) + step];
  const keys = {
    ArrowUp: () => beside(left, 1), ArrowDown: () => beside(left, -1),
    ArrowRight: () => beside(byMemory(), 1), ArrowLeft: () => beside(byMemory(), -1),
    Home: () => left[0], End: () => left.at(-1),
  };
  picture.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (left.length) choose(keys[event.key]());
  });
  const under = (event) => {
    const box = svg.getBoundingClientRect();
    const zoom = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
    let [found, least] = [undefined, NEAR];
    for (const mark of left) {
      const far = Math.hypot(mark.at[0] - x, mark.at[1] - y);
      if (far < least) [found, least] = [mark, far];
    }
    return found;
  };
  picture.addEventListener("click", (event) => choose(under(event)));
  picture.addEventListener("pointermove", (event) => {
    const mark = under(event);
    picture.classList.toggle("over", Boolean(mark));
    hint.textContent = mark ? `Under the pointer: ${layout(mark)}, ${time(data, mark.total)}, ${gb(data, mark.held)} GB, ${data.limits[mark.limit]}. Click to choose it.` : HINT;
  });
  picture.addEventListener("pointerleave", () => (hint.textContent = HINT));
  model.on("change:state", redraw);
  redraw();
  return () => model.off("change:state", redraw);
}

export default { render };
