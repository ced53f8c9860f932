// The transformer block: every picture was drawn by Python; this file shows the one that the buttons ask for.

function group(label, options, choose) {
  const set = document.createElement("fieldset");
  set.append(Object.assign(document.createElement("legend"), { textContent: label }));
  const buttons = options.map(([value, name]) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.dataset.value = value;
    button.addEventListener("click", () => choose(value));
    return button;
  });
  set.append(...buttons);
  const press = (value) =>
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === String(value))));
  return { set, buttons, press };
}

function render({ model, el }) {
  const root = Object.assign(document.createElement("div"), { className: "shards-widget" });
  const controls = Object.assign(document.createElement("div"), { className: "controls" });
  const view = document.createElement("div");
  const status = Object.assign(document.createElement("div"), { className: "status" });
  status.setAttribute("role", "status");
  let only = "all";

  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const sizes = model.get("sizes");
  const ranks = group("ranks, t", sizes.map((t) => [t, String(t)]), (t) => set("t", t));
  const modes = group(
    "sequence parallel",
    [[false, "off"], [true, "on"]],
    (on) => set("sequence_parallel", on),
  );
  const looks = group("show rank", [["all", "all"], ...Array.from({ length: 8 }, (_, r) => [r, String(r)])], (r) => {
    only = r;
    draw();
  });
  controls.append(ranks.set, modes.set, looks.set);

  function draw() {
    const t = model.get("t");
    const mode = model.get("sequence_parallel");
    if (only !== "all" && only >= t) only = "all";
    view.innerHTML = model.get("pictures")[`${t} ${mode ? "sequence" : "plain"}`];
    ranks.press(t);
    modes.press(mode);
    looks.press(only);
    looks.buttons.forEach((button, i) => (button.hidden = i > t || t === 1));
    looks.set.hidden = t === 1;
    if (only === "all") delete root.dataset.only;
    else root.dataset.only = only;
    status.textContent = view.querySelector("title").textContent;
  }

  const redraw = () => draw();
  model.on("change:t", redraw);
  model.on("change:sequence_parallel", redraw);
  root.append(controls, view, status);
  el.append(root);
  draw();
  return () => {
    model.off("change:t", redraw);
    model.off("change:sequence_parallel", redraw);
  };
}

export default { render };
