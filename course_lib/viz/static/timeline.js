// The timeline in the page: its buttons, keys and pointer, and the text that tells what is pointed at.

const HINT = "Point at an event, or press N for the next one. + and − zoom, arrows pan or change rank, 0 shows all.";
const BUTTONS = [ // in groups: what a button shows, what it does, and the key that does the same
  [["−", "zoom out (−)", "-"], ["+", "zoom in (+)", "+"], ["fit", "show all (0)", "0"]],
  [["◀", "pan left (←)", "ArrowLeft"], ["▶", "pan right (→)", "ArrowRight"]],
  [["previous", "previous event (P)", "p"], ["next", "next event (N)", "n"]],
];
const turnTo = (t, k, lane = t.selected?.lane ?? 0) => {
  const event = t.lanes[lane].events.at(k);
  if (event !== undefined) t.select(lane, event);
};
const KEYS = {
  "+": (t) => t.zoom(0.6), "=": (t) => t.zoom(0.6), "-": (t) => t.zoom(1 / 0.6), 0: (t) => t.fit(),
  ArrowLeft: (t) => t.pan(-0.2), ArrowRight: (t) => t.pan(0.2),
  ArrowUp: (t) => t.step(0, -1), ArrowDown: (t) => t.step(0, 1), n: (t) => t.step(1), p: (t) => t.step(-1),
  Home: (t) => turnTo(t, 0), End: (t) => turnTo(t, -1),
};

function render({ model, el }) {
  const data = model.get("data");
  el.classList.add("shards-widget", "trace-widget");
  el.innerHTML = `<div class="shards"><h4></h4><p></p><div class="controls"></div>
    <div class="picture" tabindex="0" role="application" data-lm-suppress-shortcuts="true"><canvas></canvas></div>
    <div class="legend"><span><i class="compute"></i>compute or other Python</span>
    <span><i class="flight"></i>communication in flight, the thread works</span>
    <span><i class="wait"></i>the thread waits</span></div><div class="details" aria-live="polite"></div></div>`;
  const [head, notes, controls, picture, legend, details] = el.firstElementChild.children;
  head.textContent = data.title;
  notes.textContent = data.notes.join(" ");
  if (data.geometry.rows) legend.append(Object.assign(document.createElement("span"), { innerHTML: '<i class="span"></i>a span, by its name' }));
  picture.setAttribute("aria-label", `${data.title}. ${data.notes.join(" ")} ${HINT}`);
  const timeline = new Timeline(data, picture.firstElementChild);
  el.timeline = timeline; // for tests and for the curious
  let frame = 0;
  const say = (found) => (details.textContent = found ? timeline.describe(found) : HINT);
  const redraw = () => {
    if (!frame) frame = requestAnimationFrame(() => ((frame = 0), timeline.draw()));
  };
  const act = (key) => {
    const before = timeline.selected;
    KEYS[key](timeline);
    if (timeline.selected !== before) say(timeline.selected);
    redraw();
  };
  for (const buttons of BUTTONS) {
    const group = document.createElement("span");
    for (const [label, title, key] of buttons) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label, title });
      button.setAttribute("aria-label", title);
      button.setAttribute("data-lm-suppress-shortcuts", "true");
      button.addEventListener("click", () => act(key));
      group.append(button);
    }
    controls.append(group);
  }
  picture.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    act(key);
  });
  const place = (event) => {
    const box = timeline.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  picture.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    timeline.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 200), timeline.tickAt(place(event)[0]));
    redraw();
  }, { passive: false });
  let drag = null;
  picture.addEventListener("pointerdown", (event) => {
    drag = { x: place(event)[0], view: timeline.view };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (drag) {
      const [a, b] = drag.view;
      timeline.show(a - ((x - drag.x) / timeline.plot[1]) * (b - a), b - a);
    } else {
      const found = timeline.at(x, y);
      timeline.selected = found?.event ? found : null;
      say(found);
    }
    redraw();
  });
  picture.addEventListener("pointerup", () => (drag = null));
  picture.addEventListener("pointercancel", () => (drag = null));
  picture.addEventListener("pointerleave", () => {
    if (drag || document.activeElement === picture) return;
    timeline.selected = null;
    say(null);
    redraw();
  });
  const recolor = () => {
    timeline.hatch = null;
    redraw();
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = new MutationObserver(recolor); // JupyterLab and VS Code write their theme on the body
  themes.observe(document.body, { attributes: true });
  const sizes = new ResizeObserver(redraw);
  sizes.observe(picture);
  dark.addEventListener("change", recolor);
  say(null);
  redraw();
  return () => {
    themes.disconnect();
    sizes.disconnect();
    dark.removeEventListener("change", recolor);
    cancelAnimationFrame(frame);
  };
}

export default { render };
