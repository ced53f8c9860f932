// A picture on the page: its parts, the scene that is shown, and what pointer and keys do to it.

class Picture {
  constructor(model, el) {
    Object.assign(this, { model, el, panels: [], scene: null });
    if (!document.getElementById("course-picture-style")) {
      document.head.append(make("style", { id: "course-picture-style", textContent: STYLE }));
    }
    const part = (name, tag = "div") => (this[name] = make(tag, { className: name }));
    const parts = [part("title", "figcaption"), part("notes"), part("rule", "p"), part("controls"), part("stage"), part("bar"), part("say"), part("alt")];
    this.root = make("figure", { className: "course-picture" }, ...parts);
    this.root.dataset.picture = model.get("_picture");
    this.rule.setAttribute("role", "status");
    this.say.setAttribute("aria-live", "polite");
    el.replaceChildren(this.root);
    this.player = new Player(this);
    this.fields = model.get("_controls").map((control) => field(this, control));
    this.controls.append(...grouped(this.fields));
    this.listen();
    this.sizes = new ResizeObserver(([entry]) => ((this.wide = entry.contentRect.width), this.resized()));
    this.sizes.observe(this.root);
  }

  end() {
    this.player.pause();
    clearTimeout(this.waiting);
    this.sizes.disconnect();
  }

  // --- choices and scenes

  get choices() {
    return this.model.get("choices");
  }

  // What the reader chose: painted at once where there is a frame for it, else asked of the kernel, where the latest wins.
  choose(changes) {
    const choices = { ...this.choices, ...changes };
    if (JSON.stringify(choices) === JSON.stringify(this.choices)) return;
    if (!this.block) this.ask();
    this.model.set("choices", choices);
    if (this.block) setTimeout(() => this.save(), 50); // painted first: what comes back from the kernel keeps the page busy
    else this.save();
    this.showChoices();
  }

  save() {
    try {
      this.model.save_changes(); // a picture with frames tells the kernel and needs no answer
    } catch (error) {
      console.debug("no kernel to tell", error);
    }
  }

  ask() {
    this.waits = true;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      this.root.classList.add("waiting");
      const why = "The kernel has not answered: it is busy, or this cell has not been run since it started.";
      this.waiting = setTimeout(() => this.tell(why), 1500);
    }, 150);
  }

  // The scene for what is chosen now.
  refresh() {
    if (this.block) {
      let place = 0;
      for (const { kind, name, values = [false, true] } of this.model.get("_controls")) {
        if (kind !== "button") place = place * values.length + values.indexOf(this.choices[name]);
      }
      return this.show(this.block.scenes[place], this.block.marks);
    }
    const { pool, scene, ...message } = JSON.parse(this.model.get("_scene"));
    if (JSON.stringify(message.for) === JSON.stringify(this.choices)) {
      clearTimeout(this.waiting);
      this.waits = false;
      this.root.classList.remove("waiting");
    }
    return this.show(scene, marksOf(pool));
  }

  show(scene, marks) {
    this.tell(scene.rule ? `✗ ${scene.rule}` : "");
    this.root.classList.toggle("blank", !this.scene && Boolean(scene.rule));
    this.showChoices(scene.rule ? undefined : (scene.off ?? {})); // under a rule what was off stays off
    if (scene.rule) return;
    const moving = Boolean(this.scene) && !calm();
    const focused = this.focused()?.mark;
    this.scene = scene;
    this.title.textContent = scene.title;
    this.notes.replaceChildren(...scene.notes.map((note) => worded(make("p"), note)));
    const said = (scene.frames ?? []).filter((f) => f.name).map((f) => f.say);
    this.alt.textContent = scene.alt ?? [scene.title, ...scene.notes, ...said].join("\n");
    scene.panels.forEach((panel, i) => {
      const svg = (this.panels[i] ??= this.panel());
      attributes(svg, { viewBox: `0 0 ${panel.w} ${panel.h}`, "aria-label": scene.title });
      svg.style.setProperty("--w", panel.w);
      if (!i) paint(svg.children[0], this.ground());
      paint(svg.children[1], marks(panel.marks), { moving });
    });
    for (const svg of this.panels.splice(scene.panels.length)) svg.remove();
    this.player.load((scene.frames ?? []).map((frame) => ({ ...frame, marks: marks(frame.marks) })), scene.seconds);
    this.tabs(focused);
    this.resized();
    this.point(this.focused());
    cover(this);
  }

  ground() { // marks that stay while choices change
    const text = this.model.get("_ground");
    if (!text) return [];
    if (text !== this.groundText) {
      const { pool, marks } = JSON.parse(text);
      [this.groundText, this.groundMarks] = [text, marksOf(pool)(marks)];
    }
    return this.groundMarks;
  }

  panel() {
    const svg = document.createElementNS(SVG, "svg");
    for (let i = 0; i < 3; i++) svg.append(document.createElementNS(SVG, "g")); // ground, marks, frames
    this.stage.append(svg);
    return svg;
  }

  tell(rule) {
    this.rule.textContent = rule;
    this.root.classList.toggle("stale", Boolean(rule));
  }

  showChoices(off = this.scene?.off) {
    for (const one of this.fields) one.write?.(this.choices[one.name], off?.[one.name] ?? "");
  }

  // A picture is as wide as the page, within reason; one that is built for a width is told it.
  resized() {
    const width = this.wide;
    if (!width || !this.scene) return;
    let [row, natural] = [0, 1];
    for (const { w } of this.scene.panels) {
      row = row && row + 16 + w <= Math.min(760, width / 0.86) ? row + 16 + w : w;
      natural = Math.max(natural, row);
    }
    this.stage.style.setProperty("--zoom", Math.min(1.6, Math.max(0.86, width / natural)));
    const wanted = Math.min(1100, Math.max(320, 20 * Math.floor(width / 20)));
    if (this.block || wanted === this.model.get("width")) return;
    this.model.set("width", wanted);
    this.save();
  }

  // --- pointer, focus and keys

  get nodes() { // of every mark, in order; some have none yet: see real()
    return this.panels.flatMap((svg) => [...svg.children].flatMap((group) => group.all ?? []));
  }

  // One stop of the Tab key for each group of marks that the arrow keys walk over, and one for the panel if it has keys.
  tabs(focused) {
    const groups = new Map();
    for (const node of this.nodes) {
      const { focus } = node.mark;
      if (focus) groups.has(focus) ? groups.get(focus).push(node) : groups.set(focus, [node]);
    }
    for (const nodes of groups.values()) {
      const mine = focused && nodes[0].mark.focus === focused.focus; // if the mark with the focus is gone, the nearest has it
      const same = mine ? nodes.reduce((a, b) => (b.mark.key && b.mark.key === focused.key ? b : a), nearest(nodes, focused)) : null;
      const stop = real(same ?? nodes.find((node) => node.tabIndex === 0) ?? nodes[0]);
      for (const node of nodes) if (node.tabIndex === 0 && node !== stop) node.setAttribute("tabindex", -1);
      stop.setAttribute("tabindex", 0);
      if (same && stop !== document.activeElement) stop.focus();
    }
    const keys = Boolean(this.scene.keys || this.zoomer || (this.scene.frames && !groups.size));
    this.panels.forEach((svg, i) => {
      const own = keys && !i;
      attributes(svg, { tabindex: own ? 0 : null, role: own ? "application" : "group" });
      if (own) guarded(svg);
    });
  }

  focused() {
    const node = document.activeElement;
    return this.stage.contains(node) && node.mark?.focus ? node : null;
  }

  // Say what is at a node, and light up what belongs to it.
  point(node) {
    const mark = node?.mark;
    worded(this.say, mark?.tip || this.player.frame?.say || this.scene?.say || "");
    if (!mark && !this.pointed) return;
    this.pointed = node;
    const words = mark ? (mark.lights.length ? mark.lights : mark.of) : [];
    this.stage.classList.toggle("pointing", words.length > 0);
    const lit = [];
    const named = ({ key, of }) => words.includes(key) || of.some((word) => words.includes(word));
    if (words.length) this.nodes.forEach((other) => other.nodeType || (named(other.mark) && real(other)));
    for (const other of this.stage.querySelectorAll(".k, .here")) {
      other.classList.toggle("lit", words.length > 0 && (other === node || named(other.mark)));
      other.classList.remove("here");
      if (other !== node && words.includes(other.mark.key) && other.mark.shape !== "text") lit.push(other.mark);
    }
    node?.classList.add("here");
    this.stage.querySelectorAll(".wire").forEach((wire) => wire.remove());
    for (const other of this.scene?.wires ? lit : []) {
      const wire = document.createElementNS(SVG, "line");
      attributes(wire, { x1: Math.min(other.x + other.w, mark.x), y1: middle(other)[1], x2: mark.x, y2: middle(mark)[1], class: "wire" });
      this.panels[0].append(wire);
    }
  }

  // The node that the pointer means: under it, or the nearest one that says something. What has no node yet may lie above another.
  at(event) {
    const [under, svg] = [event.target.mark?.tip ? event.target : null, event.target.closest?.("svg")];
    if (!svg) return null;
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let [found, least] = [under, under ? 0 : NEAR];
    for (const node of [...svg.children].flatMap((group) => group.all ?? [])) {
      if (node === under) found = under;
      if (!node.mark.tip || (under && node.nodeType)) continue;
      const far = distance(node.mark, x, y);
      if (far < least || (far === 0 && !node.nodeType)) [found, least] = [node, far];
    }
    return found && real(found);
  }

  listen() {
    const { stage } = this;
    const on = (type, act) => stage.addEventListener(type, act);
    on("pointermove", (event) => event.buttons || this.point(this.at(event) ?? this.focused()));
    on("pointerleave", () => this.point(this.focused()));
    on("focusout", () => this.point(null));
    on("focusin", () => {
      const node = this.focused();
      if (!node) return;
      for (const other of this.nodes) if (other.nodeType && other.mark.focus === node.mark.focus) other.setAttribute("tabindex", other === node ? 0 : -1);
      this.point(node);
    });
    on("click", (event) => {
      const node = event.target.mark?.sets.length ? event.target : this.at(event);
      if (node?.mark.sets.length) this.choose(Object.fromEntries(node.mark.sets));
      else this.point(node ?? this.focused()); // for a finger, which does not hover
    });
    on("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.key(event.key, event.target)) return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  // Whether the key means something here: to the scene, to the mark that has the focus, to the zoom, to the player.
  key(key, target) {
    const chosen = this.scene.keys?.[key];
    const node = target.mark?.focus ? target : null;
    if (chosen) this.choose(chosen);
    else if (node?.mark.sets.length && (key === "Enter" || key === " ")) this.choose(Object.fromEntries(node.mark.sets));
    else if (node && (key in ARROWS || key === "Home" || key === "End")) {
      const group = this.nodes.filter(({ mark }) => mark.focus === node.mark.focus);
      const next = key in ARROWS ? beside(group, node, ARROWS[key]) : group.at(key === "Home" ? 0 : -1);
      if (next) real(next).focus();
      else this.zoomer?.(key);
    } else return this.zoomer?.(key) || this.player.key(key);
    return true;
  }
}
