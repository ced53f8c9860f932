// The matrix of traffic: a cursor over the cells that Python drew tells each one's bytes and messages.

const { format } = new Intl.NumberFormat("en-US");
const plural = (n, word) => `${format(n)} ${word}${n === 1 ? "" : "s"}`;
const HINT = "Point at a cell, or move there with Tab and the arrow keys, to see its bytes and messages.";
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function render({ model, el }) {
  const { n, x, y, size, cells } = model.get("data");
  const found = new Map(cells.map(([sender, receiver, ...counts]) => [sender * n + receiver, counts]));
  el.classList.add("shards-widget", "trace-widget");
  el.innerHTML = `<div class="shards"><div class="picture" tabindex="0" role="application" data-lm-suppress-shortcuts="true">${model.get("picture")}</div>
    <div class="details" aria-live="polite"></div></div>`;
  const [picture, details] = el.firstElementChild.children;
  const svg = picture.firstElementChild;
  picture.setAttribute("aria-label", `${svg.querySelector("title").textContent}. Arrow keys move from cell to cell.`);
  svg.querySelector("title").remove(); // else the browser shows it as a tooltip
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({ class: "cursor", width: size, height: size, display: "none" })) cursor.setAttribute(name, value);
  svg.append(cursor);
  let at = null; // the cell that the keyboard is at

  const point = (cell) => {
    cursor.setAttribute("display", cell ? "inline" : "none");
    if (!cell) return (details.textContent = HINT);
    const [sender, receiver] = cell;
    cursor.setAttribute("x", x + receiver * size);
    cursor.setAttribute("y", y + sender * size);
    const [nbytes, messages] = found.get(sender * n + receiver) ?? [0, 0];
    const counts = messages ? `${plural(nbytes, "byte")} in ${plural(messages, "message")}` : "no message";
    details.textContent = `rank ${sender} → rank ${receiver}: ${counts}`;
  };
  const under = (event) => {
    const box = svg.getBoundingClientRect();
    const scale = 800 / box.width;
    const cell = [(event.clientY - box.top) * scale - y, (event.clientX - box.left) * scale - x].map((c) => Math.floor(c / size));
    return cell.every((i) => i >= 0 && i < n) ? cell : null;
  };
  picture.addEventListener("pointermove", (event) => point(under(event) ?? at));
  picture.addEventListener("pointerleave", () => point(at));
  picture.addEventListener("focusin", () => picture.matches(":focus-visible") && point((at ??= [0, 0])));
  picture.addEventListener("focusout", () => point((at = null)));
  picture.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    event.stopPropagation();
    at = (at ?? [0, 0]).map((i, axis) => Math.min(n - 1, Math.max(0, i + STEPS[event.key][axis])));
    point(at);
  });
  point(null);
}

export default { render };
