// The roofline explorer: controls, the picture and its readout. All of it is computed in the page, so it needs no kernel.

const SVG = "http://www.w3.org/2000/svg";

const make = ([tag, attributes, content]) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = content;
  return node;
};

// What is shown for the names and numbers that were chosen.
export function sceneOf(data, { device, beside, model, operation, tokens, everything }) {
  const there = data.models[model];
  const op = there[operation];
  return {
    device, model, op, tokens,
    roof: data.rooflines[device],
    unit: new Map(data.phases).get(op.phase),
    others: everything ? Object.values(there).filter((other) => other.phase === op.phase) : [],
    beside: beside === device || beside === data.nothing ? null : { name: beside, roof: data.rooflines[beside] },
  };
}

const NAMES = ["device", "beside", "model", "operation", "tokens", "everything"];
const UNIT_HINTS = { tokens: "tokens (batch × sequence)", sequences: "sequences (one new token each)" };

function render({ model, el }) {
  const data = model.get("data");
  el.classList.add("shards-widget", "trace-widget", "roofline-widget");
  el.innerHTML = `<div class="controls"></div><div class="picture">${model.get("picture")}</div>
    <dl></dl><div class="details"></div><div class="status" role="status"></div>`;
  const [controls, picture, readout, details, status] = el.children;
  const svg = picture.firstElementChild;
  const live = svg.querySelector(".live");
  svg.querySelector("title").remove(); // else the browser shows it as a tooltip
  svg.querySelector("desc").remove();

  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
  };
  const tell = () => {
    try {
      model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
    } catch (error) {
      console.debug("no kernel to tell", error);
    }
  };
  const element = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const labelled = (label, node, kind = "") => {
    const holder = element("label", { className: kind });
    const words = element("span", { textContent: label });
    node.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab takes the keys
    holder.append(words, node);
    controls.append(holder);
    return words;
  };
  const select = (label, groups, changes) => {
    const node = element("select");
    for (const [group, options] of groups) {
      const parent = group ? node.appendChild(element("optgroup", { label: group })) : node;
      for (const option of options) parent.append(new Option(option, option));
    }
    node.addEventListener("change", () => (set(changes(node.value)), tell()));
    labelled(label, node, "over");
    return node;
  };

  const devices = Object.keys(data.rooflines);
  const names = Object.values(Object.values(data.models)[0]);
  const kinds = data.phases.map(([phase]) => [phase, names.filter((op) => op.phase === phase).map((op) => op.name)]);
  const nodes = {
    device: select("device", [["", devices]], (device) => ({ beside: model.get("device"), device })),
    beside: select("compared with", [["", [data.nothing, ...devices]]], (beside) => ({ beside })),
    model: select("model", [["", Object.keys(data.models)]], (name) => ({ model: name })),
    operation: select("operation", kinds, (operation) => ({ operation })),
  };
  const slider = element("input", { type: "range", min: 0, max: data.powers, step: 1 });
  const unit = labelled("", slider, "wide");
  const number = element("span", { className: "number" });
  slider.after(number);
  slider.addEventListener("input", () => set({ tokens: 2 ** slider.valueAsNumber }));
  slider.addEventListener("change", tell);
  const every = element("input", { type: "checkbox" });
  labelled("all operations of the layer", every, "mark");
  every.addEventListener("change", () => (set({ everything: every.checked }), tell()));
  live.addEventListener("click", (event) => {
    const { operation } = event.target.dataset;
    if (operation) (set({ operation }), tell());
  });

  const redraw = () => {
    const state = Object.fromEntries(NAMES.map((name) => [name, model.get(name)]));
    const scene = sceneOf(data, state);
    for (const [name, node] of Object.entries(nodes)) node.value = state[name];
    slider.value = Math.log2(state.tokens);
    every.checked = state.everything;
    number.textContent = count(state.tokens);
    unit.textContent = UNIT_HINTS[scene.unit];
    slider.setAttribute("aria-valuetext", `${number.textContent} ${scene.unit}`);
    live.replaceChildren(...shapes(scene, data.plot).map(make));
    readout.replaceChildren(...Object.entries(figures(scene)).map(([name, value]) => {
      const cell = element("div");
      cell.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
      return cell;
    }));
    const [what, fast, why] = sentences(scene);
    details.textContent = `${what} ${why}`;
    status.textContent = [`${title(scene)}.`, what, fast, why].join(" ");
    svg.setAttribute("aria-label", status.textContent);
  };
  el.redraw = redraw;
  const events = NAMES.map((name) => `change:${name}`).join(" ");
  model.on(events, redraw);
  redraw();
  return () => model.off(events, redraw);
}

export default { render };
