// The sharding view of a transformer block. Python drew every picture that can be chosen; this file shows one of them.

const HINT = "Point at a rank's column, or move there with Tab and the arrow keys, to see what the rank holds.";
const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
let made = 0; // for a name that the buttons of one widget share

function render({ model, el }) {
  const data = model.get("data");
  el.classList.add("shards-widget", "block-widget");
  el.innerHTML = `<div class="controls"></div><div class="picture"></div>
    <div class="details"></div><div class="status" role="status"></div>`;
  const [controls, picture, details, status] = el.children;

  const tell = (name, value) => {
    model.set(name, value);
    try {
      model.save_changes(); // tells the kernel; the picture does not wait for it, nor need it
    } catch (error) {
      console.debug("no kernel to tell", error);
    }
  };
  const group = `block-${(made += 1)}-${Math.random()}`;
  const buttons = data.options.map((t) => {
    const node = guarded(make("input", { type: "radio", name: group, value: t }));
    node.setAttribute("aria-label", `${t} rank${t === 1 ? "" : "s"}`);
    node.addEventListener("change", () => tell("t", t));
    return node;
  });
  const choices = make("span", { className: "segments" }, ...buttons.map((node) => make("label", {}, node, make("span", {}, node.value))));
  choices.setAttribute("role", "radiogroup");
  choices.setAttribute("aria-label", "tensor-parallel ranks t");
  const sequence = guarded(make("input", { type: "checkbox" }));
  sequence.addEventListener("change", () => tell("sequence_parallel", sequence.checked));
  const why = make("span", { className: "why" });
  controls.append(make("span", { className: "choice" }, "tensor-parallel ranks t", choices), make("label", {}, sequence, "sequence parallel"), why);

  let [shown, columns] = ["", []];
  const point = (column) => {
    details.textContent = column ? data.ranks[shown][column.dataset.r] : HINT;
    for (const other of columns) other.classList.toggle("faded", Boolean(column) && other !== column);
  };
  const focused = () => (picture.contains(document.activeElement) ? document.activeElement.closest(".column") : null);
  const stopAt = (column) => columns.forEach((other) => other.setAttribute("tabindex", other === column ? 0 : -1));
  picture.addEventListener("pointerover", (event) => point(event.target.closest(".column") ?? focused()));
  picture.addEventListener("pointerleave", () => point(focused()));
  picture.addEventListener("focusin", (event) => {
    const column = event.target.closest(".column");
    stopAt(column);
    point(column);
  });
  picture.addEventListener("focusout", () => point(null));
  picture.addEventListener("keydown", (event) => {
    const column = event.target.closest(".column");
    if (!column || !(event.key in STEPS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    columns[Number(column.dataset.r) + STEPS[event.key]]?.focus();
  });

  const redraw = () => {
    const [t, on] = [model.get("t"), model.get("sequence_parallel")];
    const key = on && `${t}s` in data.pictures ? `${t}s` : `${t}`;
    for (const node of buttons) {
      node.checked = Number(node.value) === t;
      node.disabled = on && Number(node.value) > 1 && node.value in data.refused; // a choice that cannot be
    }
    sequence.checked = on;
    sequence.disabled = t > 1 && t in data.refused;
    why.textContent = data.refused[t] ?? (on ? Object.entries(data.refused).find(([n]) => n > 1)?.[1] : "") ?? "";
    if (key === shown) return;
    const last = focused()?.dataset.r;
    shown = key;
    picture.innerHTML = data.pictures[key];
    const svg = picture.firstElementChild;
    columns = [...svg.querySelectorAll(".column")];
    svg.setAttribute("role", "group"); // role=img would hide the columns from a screen reader
    svg.setAttribute("aria-label", svg.querySelector("desc").textContent);
    for (const old of svg.querySelectorAll("title, desc")) old.remove(); // else the browser shows it as a tooltip
    columns.forEach((column, rank) => {
      guarded(column).setAttribute("role", "img");
      column.setAttribute("aria-label", data.ranks[key][rank]);
    });
    stopAt(columns[0]);
    point(null);
    if (last !== undefined) columns[Math.min(last, columns.length - 1)].focus();
    status.textContent = data.spoken[key];
  };
  model.on("change:t change:sequence_parallel", redraw);
  redraw();
  return () => model.off("change:t change:sequence_parallel", redraw);
}

export default { render };
