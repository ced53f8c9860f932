// The memory estimator: controls, the bars that Python drew, the verdict and the changes that would help.
// All of it answers in the page; the kernel is told what was chosen and not waited for.

const MOST = 1e6; // of what can be typed
const SHORT = ["tp", "pp", "dp"]; // names that the sentences use, shown beside the labels

const move = (node, attributes) => {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
};

// The control of a field: [node, read, write]. read() is undefined for what is no whole number.
function control(name, data, choices) {
  if (name === "sequence_parallel") {
    const box = make("input", { type: "checkbox" });
    return [box, () => box.checked, (value) => (box.checked = value)];
  }
  if (choices[name]) {
    const select = make("select", { className: name === "model" ? "wide" : "" });
    for (const option of choices[name]) select.add(new Option(option, option));
    const read = () => (name === "zero" ? Number(select.value) : select.value);
    return [select, read, (value) => (select.value = value)];
  }
  const input = make("input", { type: "number", min: 1, max: MOST, step: 1 });
  const read = () => {
    const number = input.valueAsNumber;
    return Number.isInteger(number) && number <= MOST ? number : undefined;
  };
  return [input, read, (value) => (input.value = value)];
}

// The bars of a memory use; `before` is the total to compare with.
export function updateBars(svg, data, gpu, use, before) {
  const capacity = data.gpus[gpu];
  const total = use ? totalOf(use) : 0;
  const { left, right } = data;
  const scale = (right - left) / (1.04 * Math.max(capacity, total));
  const limit = left + capacity * scale;
  const numbers = svg.querySelectorAll(".number");
  let start = 0;
  KINDS.forEach((kind, k) => {
    const size = use ? use[kind] : 0;
    const place = { x: left + start * scale, width: size * scale };
    for (const bar of svg.querySelectorAll(`.held.r${k}`)) move(bar, place);
    numbers[k].textContent = use ? gbText(size, total) : "–";
    start += size;
  });
  numbers[KINDS.length].textContent = use ? gbText(total) : "–";
  move(svg.querySelector(".over"), { x: limit, width: right - limit });
  move(svg.querySelector(".limit"), { x: limit - 1 });
  move(svg.querySelector(".room"), { width: limit - left });
  const caption = svg.querySelector(".caption");
  move(caption, { x: limit, class: limit > (left + right) / 2 ? "caption end" : "caption" });
  caption.textContent = `${gpu}: ${capacity / 1e9} GB`;
  const display = before && before !== total ? "inline" : "none";
  move(svg.querySelector(".before"), { width: Math.min(right - left, before * scale) + 6, display });
}

function render({ model, el }) {
  const data = model.get("data");
  const [models, gpus] = [data.models, data.gpus].map(Object.keys);
  const choices = { model: models, gpu: gpus, zero: [0, 1, 2, 3], recompute: data.recompute };
  el.classList.add("shards-widget", "trace-widget", "estimator-widget");
  el.innerHTML = `<div class="shards"><div class="columns"><div class="controls"></div><div class="answer">
    <h4></h4><div class="picture">${model.get("picture")}</div>
    <div class="outcome" role="status"><strong></strong><p></p></div><p class="heading"></p><ul></ul>
    <p class="foot">GB: 10⁹ bytes. Dashed: before your last change. Not counted: what libraries take for
    themselves, buffers of messages, gaps of the allocator.</p>
    </div></div></div>`;
  const [controls, answer] = el.querySelector(".columns").children;
  const [title, picture, verdict, head, list] = answer.children;
  const [said, sizes] = verdict.children;
  const svg = picture.firstElementChild;
  for (const old of svg.querySelectorAll("title, desc")) old.remove(); // the label says what is shown now
  const fields = {};
  const typed = {}; // the sentences about what is no whole number
  let [before, settled, edited] = [0, 0, ""];

  const tell = (state) => {
    model.set("state", state);
    try {
      model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
    } catch (error) {
      console.debug("no kernel to tell", error);
    }
  };
  for (const [group, labels] of Object.entries(data.labels)) {
    const field = make("fieldset", {}, make("legend", { textContent: group }));
    for (const [name, label] of Object.entries(labels)) {
      const [node, read, write] = control(name, data, choices);
      fields[name] = { node: guarded(node), write };
      const text = make("span", {}, label);
      if (SHORT.includes(name)) text.append(make("small", { textContent: ` ${name}` }));
      node.setAttribute("aria-label", text.textContent); // the label's own text has the options in it, too
      field.append(make("label", {}, text, node));
      node.addEventListener("input", () => {
        if (edited !== name) [edited, before] = [name, settled]; // typing is one change, not one a digit
        const value = read();
        delete typed[name];
        if (value === undefined) typed[name] = `${name} takes a whole number of at most 1,000,000.`;
        if (value !== undefined) tell({ ...model.get("state"), [name]: value });
        redraw(); // also where the state is what it was before something wrong was typed
      });
      node.addEventListener("change", () => (edited = ""));
    }
    controls.append(field);
  }
  const rows = Array.from({ length: 9 }, () => {
    const parts = ["mark", "change", "gpus", "total"].map((className) => make("span", { className }));
    const button = guarded(make("button", { type: "button" }, ...parts));
    const row = { parts, button, item: make("li", {}, button), settings: {} };
    button.addEventListener("click", () => {
      [before, edited] = [settled, ""];
      tell({ ...model.get("state"), ...row.settings });
      if (row.item.hidden) (rows[0].item.hidden ? fields.model.node : rows[0].button).focus();
    });
    list.append(row.item);
    return row;
  });

  const showAdvice = (state, fits) => {
    const found = state ? suggestions(data, state) : [];
    head.textContent = state ? heading(found, fits) : "";
    rows.forEach((row, k) => {
      row.item.hidden = k >= found.length;
      if (row.item.hidden) return;
      const { change, settings, total_bytes, spare_bytes, num_gpus } = found[k];
      row.settings = settings;
      const gpus = num_gpus === numGpus(state) ? "" : `${whole(num_gpus)} GPUs`;
      const texts = [spare_bytes >= 0 ? "✓" : "✗", change, gpus, gbText(total_bytes)];
      texts.forEach((text, i) => (row.parts[i].textContent = text));
      const spoken = [change, ...texts.slice(2).filter(Boolean), verdictText(spare_bytes)];
      row.button.setAttribute("aria-label", spoken.join(", "));
      row.button.classList.toggle("fits", spare_bytes >= 0);
    });
  };
  const redraw = () => {
    const state = model.get("state");
    const shape = data.models[state.model];
    const broken = Object.values(typed)[0] ?? rule(shape, state);
    const use = broken ? null : memoryUse(shape, state);
    const spare = use ? data.gpus[state.gpu] - totalOf(use) : -1;
    for (const [name, { node, write }] of Object.entries(fields)) {
      if (!(name in typed)) write(state[name]);
      node.setAttribute("aria-invalid", name in typed);
    }
    updateBars(svg, data, state.gpu, use, before);
    title.textContent = `${state.model} on ${state.gpu}: one GPU of the first stage`;
    verdict.classList.toggle("bad", spare < 0);
    said.textContent = use ? `${spare >= 0 ? "✓" : "✗"} ${verdictText(spare)}` : `✗ not possible: ${broken}`;
    sizes.textContent = use ? [sizesText(state), idleText(state)].filter(Boolean).join(" · ") : "";
    const seen = use ? describe(shape, state.gpu, data.gpus[state.gpu], state, use) : broken;
    svg.setAttribute("aria-label", seen);
    showAdvice(use && state, spare >= 0);
    if (use) settled = totalOf(use);
  };
  model.on("change:state", redraw);
  redraw();
  return () => model.off("change:state", redraw);
}

export default { render };
