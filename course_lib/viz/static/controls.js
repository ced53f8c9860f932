// A control on the page: its node, and write(value, why it is off).
function field(picture, control) {
  const { kind, name, label, look } = control;
  const choose = (value) => picture.choose({ [name]: value });
  const labelled = (node, ...more) => node.setAttribute("aria-label", label) ?? make("label", { className: `field ${look ?? kind}` }, make("span", { textContent: label }), node, ...more);
  const disable = (node, why) => Object.assign(node, { disabled: Boolean(why), title: why });
  if (kind === "button") {
    const node = guarded(make("button", { type: "button", textContent: label }));
    node.addEventListener("click", () => picture.choose(control.sets));
    return { ...control, item: node, write: (_, why) => disable(node, why) };
  }
  if (control.hidden) return { ...control, item: "" };
  if (kind === "view") return zoomer(picture, control);
  if (kind === "switch") {
    const node = guarded(make("input", { type: "checkbox" }));
    node.addEventListener("change", () => choose(node.checked));
    return { ...control, item: labelled(node), write: (value, why) => (disable(node, why).checked = value) };
  }
  if (kind === "text") {
    const node = guarded(make("textarea", { rows: control.rows, spellcheck: false }));
    let timer = 0;
    node.addEventListener("input", () => (clearTimeout(timer), (timer = setTimeout(() => choose(node.value), 200))));
    return { ...control, item: labelled(node), write: (value) => node.matches(":focus") || (node.value = value) };
  }
  if (kind === "choice" && look === "slider") {
    const values = control.options.map(([value]) => value);
    const node = guarded(make("input", { type: "range", min: 0, max: values.length - 1, step: 1 }));
    const shown = make("output");
    node.addEventListener("input", () => choose(values[node.valueAsNumber]));
    const write = (value, why) => {
      disable(node, why).value = values.indexOf(value);
      shown.textContent = control.options[values.indexOf(value)][1];
      node.setAttribute("aria-valuetext", shown.textContent);
    };
    return { ...control, item: labelled(node, shown), write };
  }
  if (kind === "choice" && look === "list") {
    const node = guarded(make("select", {}, ...control.options.map(([, words], i) => new Option(words, i))));
    node.addEventListener("change", () => choose(control.options[node.value][0]));
    return { ...control, item: labelled(node), write: (value, why) => (disable(node, why).value = control.options.findIndex(([option]) => option === value)) };
  }
  if (kind === "choice") {
    const group = `course-choice-${(made += 1)}-${Date.now()}`;
    const inputs = control.options.map(([value]) => {
      const node = guarded(make("input", { type: "radio", name: group }));
      node.addEventListener("change", () => choose(value));
      return node;
    });
    const list = make("span", { className: "options" }, ...inputs.map((node, i) => make("label", {}, node, worded(make("span"), control.options[i][1]))));
    attributes(list, { role: "radiogroup", "aria-label": label });
    const write = (value, why) => inputs.forEach((node, i) => (disable(node, why).checked = control.options[i][0] === value));
    return { ...control, item: make("span", { className: `field ${look}` }, make("span", { textContent: label }), list), write };
  }
  const [low, high] = [control.low, control.high];
  const node = guarded(make("input", { type: look === "slider" ? "range" : "number", min: low, max: high, step: control.whole ? 1 : "any" }));
  const shown = make("output");
  node.addEventListener("input", () => {
    const value = node.valueAsNumber;
    const fits = value >= low && value <= high && (!control.whole || Number.isInteger(value));
    node.setAttribute("aria-invalid", !fits);
    if (fits) choose(value);
    else picture.tell(`✗ ${label} takes ${control.whole ? "a whole number" : "a number"} from ${low} to ${high}.`);
  });
  const write = (value, why) => {
    if (node.valueAsNumber !== value && !(node.matches(":focus") && node.getAttribute("aria-invalid") === "true")) node.value = value;
    disable(node, why);
    shown.textContent = look === "slider" ? value : "";
  };
  return { ...control, item: labelled(node, ...(look === "slider" ? [shown] : [])), write };
}

// Controls in their groups.
function grouped(fields) {
  const groups = new Map();
  for (const one of fields) {
    if (!groups.has(one.group)) groups.set(one.group, one.group ? make("fieldset", {}, make("legend", { textContent: one.group })) : make("div", { className: "row" }));
    groups.get(one.group).append(one.item);
  }
  return groups.values();
}

// Zoom and pan along the first panel: buttons, keys, wheel with Ctrl, and dragging.
function zoomer(picture, control) {
  const { name, low, high } = control;
  const view = () => picture.choices[name];
  const show = (start, length) => {
    const wide = Math.min(high - low, Math.max((high - low) / 1e6, length));
    const from = Math.min(Math.max(start, low), high - wide);
    picture.choose({ [name]: [from, from + wide] });
  };
  const zoom = (factor, share = 0.5) => {
    const [a, b] = view();
    show(a + share * (b - a) * (1 - factor), (b - a) * factor);
  };
  const pan = (share) => show(view()[0] + share * (view()[1] - view()[0]), view()[1] - view()[0]);
  const acts = { "-": () => zoom(1 / 0.6), "+": () => zoom(0.6), "=": () => zoom(0.6), 0: () => show(low, high - low), ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25) };
  const buttons = [["−", "zoom out (−)", "-"], ["+", "zoom in (+)", "+"], ["fit", "show all (0)", "0"], ["◀", "pan left (←)", "ArrowLeft"], ["▶", "pan right (→)", "ArrowRight"]].map(([text, title, key]) => {
    const node = guarded(make("button", { type: "button", textContent: text, title }));
    node.setAttribute("aria-label", title);
    node.addEventListener("click", acts[key]);
    return node;
  });
  const share = (event) => {
    const svg = picture.panels[0];
    const [x0, x1] = picture.scene.zoom;
    const { x } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return Math.min(1, Math.max(0, (x - x0) / (x1 - x0)));
  };
  picture.stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 200), share(event));
  }, { passive: false });
  let drag = null;
  picture.stage.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && event.pointerType !== "touch") drag = { at: share(event), view: view() };
  });
  picture.stage.addEventListener("pointermove", (event) => {
    if (!drag || !event.buttons) return (drag = null);
    const [a, b] = drag.view;
    return show(a - (share(event) - drag.at) * (b - a), b - a);
  });
  picture.zoomer = (key) => key in acts && (acts[key](), true);
  return { ...control, item: make("span", { className: "field zoom" }, ...buttons) };
}

