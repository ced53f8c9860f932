// The one runtime of all pictures: marks.js, picture.js, player.js, controls.js and page.js, joined in this order. It paints
// scenes that Python built and answers to pointer, keys and controls. Every number, word and place in a scene is Python's;
// course_lib/viz/scene.py says what a mark, a frame and a control is.

const SVG = "http://www.w3.org/2000/svg";
const STYLE = "{{style}}";
const TAGS = { rect: "rect", dot: "circle", line: "line", path: "path", text: "text" };
const NEAR = 9; // pixels from a mark at which the pointer still means it
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
let made = 0; // for names that radio buttons share

const make = (tag, properties = {}, ...content) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...content);
  return node;
};
const worded = (node, text) => { // what stands between backticks is code
  node.replaceChildren(...text.split("`").map((part, i) => (i % 2 ? make("code", { textContent: part }) : part)));
  return node;
};
const guarded = (node) => {
  node.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab takes the keys
  return node;
};
const attributes = (node, values) => {
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") node.removeAttribute(name);
    else node.setAttribute(name, value);
  }
};

const USUAL = { x: 0, y: 0, w: 0, h: 0, text: "", key: "", of: [], tip: "", lights: [], sets: [], focus: "", came: null };
const ONE_OF_MANY = 150; // of more marks than so many none is moved softly, and what is invisible gets a node when it is pointed at

// The columns of a pool as marks; each is made when it is first asked for.
function marksOf(pool) {
  const columns = Object.entries(pool);
  const found = [];
  const make = (i) => {
    const mark = { ...USUAL };
    for (const [name, column] of columns) mark[name] = column[i];
    return mark;
  };
  return (steps) => {
    let i = 0;
    return steps.map((step) => (found[(i += step)] ??= make(i)));
  };
}

// What is different from the mark that the node had before is written into it.
function write(node, mark, before) {
  const { shape, x, y, w, h, text, focus, tip } = mark;
  const at = before && before.x === x && before.y === y && before.w === w && before.h === h;
  if (shape === "rect" && !at) attributes(node, { x, y, width: Math.max(0, w), height: Math.max(0, h) });
  else if (shape === "dot" && !at) attributes(node, { cx: x, cy: y, r: w });
  else if (shape === "line" && !at) attributes(node, { x1: x, y1: y, x2: x + w, y2: y + h });
  else if (shape === "path") {
    if (before?.text !== text) node.setAttribute("d", text);
    if (!at) attributes(node, { transform: x || y ? `translate(${x} ${y})` : null });
  } else if (shape === "text") {
    if (!at) attributes(node, { x, y, textLength: w || null, lengthAdjust: w ? "spacingAndGlyphs" : null });
    if (before?.text !== text) node.textContent = text;
  }
  const kind = (m) => `${m.kind}${m.key || m.of.length ? " k" : ""}${m.tip || m.sets.length ? " on" : ""}${m.sets.length ? " sets" : ""}`;
  if (!before || kind(before) !== kind(mark)) node.setAttribute("class", kind(mark));
  if (focus && !(before?.focus && before.tip === tip && before.text === text)) {
    guarded(node);
    attributes(node, { tabindex: node.getAttribute("tabindex") ?? -1, role: mark.sets.length ? "button" : "img", "aria-label": tip || text });
  } else if (!focus && before?.focus) attributes(node, { tabindex: null, role: null, "aria-label": null });
  node.mark = mark;
}

// The marks as children of a group: what keeps its key, or its place among those without one, is kept and moved.
// `group.all` has all of them in order: nodes, and { mark, group, id } for a mark that has no node yet.
function paint(group, marks, { moving = false, seconds = 0.2 } = {}) {
  const old = group.nodes ?? new Map();
  const [nodes, flights, all] = [new Map(), [], []];
  const unseen = (mark) => mark.kind.startsWith("hit");
  const lazy = marks.filter(unseen).length > ONE_OF_MANY;
  let [at, count] = [group.firstChild, 0];
  for (const mark of marks) {
    const id = mark.key ? `${mark.shape} ${mark.key}` : `${mark.shape}#${count++}`;
    let node = old.get(id);
    if (!node && lazy && unseen(mark)) {
      all.push({ mark, group, id });
      continue;
    }
    const before = node?.mark;
    if (node) old.delete(id);
    else node = document.createElementNS(SVG, TAGS[mark.shape]);
    if (before !== mark) {
      write(node, mark, before);
      const from = moving && mark.key && (before ?? (mark.came && { x: mark.x + mark.came[0], y: mark.y + mark.came[1] }));
      if (from && (from.x !== mark.x || from.y !== mark.y)) flights.push([node, from.x - mark.x, from.y - mark.y]);
    }
    if (node === at) at = at.nextSibling;
    else group.insertBefore(node, at);
    nodes.set(id, node);
    all.push(node);
  }
  for (const node of old.values()) node.remove();
  Object.assign(group, { nodes, all });
  if (flights.length > ONE_OF_MANY) return;
  for (const [node, dx, dy] of flights) {
    node.animate([{ translate: `${dx}px ${dy}px` }, { translate: "0 0" }], { duration: 1000 * seconds, easing: "ease-in-out" });
  }
}

// The node of a mark, made now if it has none. It lies under the words.
function real(one) {
  if (one.nodeType) return one;
  const { mark, group, id } = one;
  const node = document.createElementNS(SVG, TAGS[mark.shape]);
  write(node, mark);
  group.insertBefore(node, group.querySelector("text"));
  group.nodes.set(id, node);
  group.all[group.all.indexOf(one)] = node;
  return node;
}

// How far a point is from a mark; 0 inside it.
function distance({ shape, x, y, w, h }, px, py) {
  if (shape === "dot") return Math.max(0, Math.hypot(px - x, py - y) - w);
  const [left, right, top, bottom] = [Math.min(x, x + w), Math.max(x, x + w), Math.min(y, y + h), Math.max(y, y + h)];
  return Math.hypot(Math.max(left - px, 0, px - right), Math.max(top - py, 0, py - bottom));
}

const middle = ({ shape, x, y, w, h }) => (shape === "dot" ? [x, y] : [x + w / 2, y + h / 2]);

// The node whose mark is nearest to a mark.
function nearest(nodes, mark) {
  const far = (node) => Math.hypot(...middle(node.mark).map((c, i) => c - middle(mark)[i]));
  return nodes.reduce((a, b) => (far(b) < far(a) ? b : a));
}

// The mark that an arrow key leads to: the nearest of its group on that side, straight ahead before aslant.
function beside(nodes, from, [dx, dy]) {
  const [x, y] = middle(from.mark);
  let [found, least] = [null, Infinity];
  for (const node of nodes) {
    const [u, v] = middle(node.mark);
    const ahead = (u - x) * dx + (v - y) * dy;
    const aside = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
    if (ahead > 0.5 && ahead + 3 * aside < least) [found, least] = [node, ahead + 3 * aside];
  }
  return found;
}

