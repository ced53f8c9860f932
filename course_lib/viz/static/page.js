// How a picture gets into a page: as a widget, or as a figure of a page that no kernel runs. And what an open question covers.

// The cells after a question, up to the next heading or question: covered while it is open, then shown under what was predicted.
function cover(picture) {
  const { after } = picture.scene;
  if (after === undefined) return;
  picture.root.classList.toggle("open", !after);
  let cell = picture.el.closest(".jp-Cell, .cell")?.nextElementSibling;
  for (let said = after; cell && !cell.querySelector("h1, h2, h3, [data-picture=prediction]"); cell = cell.nextElementSibling) {
    cell.classList.toggle("course-covered", !after);
    if (after) cell.querySelectorAll("details").forEach((node) => (node.open = true));
    if (said && cell.classList.contains("jp-CodeCell")) [cell.dataset.predicted, said] = [said, ""];
  }
}

// --- the two ways into a page: as a widget, and as a figure in a page that no kernel runs

async function unpack(bytes) {
  const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const { controls, scenes, pool } = JSON.parse(text);
  return { controls, scenes, marks: marksOf(pool) };
}

export async function render({ model, el }) {
  const picture = new Picture(model, el);
  const block = model.get("_block");
  if (block?.byteLength) picture.block = await unpack(block);
  el.picture = picture; // for tests and for the curious
  const redraw = () => picture.refresh();
  const events = picture.block ? "change:choices" : "change:_scene";
  model.on(events, redraw);
  redraw();
  return () => {
    picture.end();
    model.off(events, redraw);
  };
}

export async function hydrate() {
  for (const figure of document.querySelectorAll("figure[data-frames]:not([data-live])")) {
    figure.dataset.live = "yes";
    const block = document.querySelector(`[data-course-block="${figure.dataset.frames}"]`);
    const state = { _picture: figure.dataset.picture, choices: JSON.parse(figure.dataset.choices) };
    state._block = Uint8Array.from(atob(block.textContent), (c) => c.charCodeAt(0));
    state._controls = (await unpack(state._block)).controls;
    const model = new (class extends EventTarget {
      get = (name) => state[name];
      set = (name, value) => ((state[name] = value), this.dispatchEvent(new Event(`change:${name}`)));
      on = (events, listener) => events.split(" ").forEach((name) => this.addEventListener(name, listener));
      save_changes() {}
    })();
    render({ model, el: figure });
  }
}
