// The frames of an animation, laid over the first panel one after the other. `at` is the frame that is shown; −1 is none of
// them, which stands for all of it where frames have no names.

class Player {
  constructor(picture) {
    Object.assign(this, { picture, frames: [], at: -1, timer: 0 });
  }

  get frame() {
    return this.frames[this.at];
  }

  get stops() {
    return this.frames.map((_, i) => i).filter((i) => !this.frames[i].passing);
  }

  get least() {
    return this.frames[0]?.name ? 0 : -1;
  }

  load(frames, seconds) {
    this.pause();
    const another = frames.length !== this.frames.length || (frames[0]?.name && this.seen !== this.picture.scene.title);
    Object.assign(this, { frames, seconds, seen: this.picture.scene.title });
    this.picture.bar.hidden = !frames.length;
    if (frames.length && !this.slider) this.build();
    if (this.slider) this.slider.max = this.stops.length - 1;
    this.go(another || this.frame?.passing ? this.least : this.at);
  }

  build() {
    const button = (text, title, act) => {
      const node = guarded(make("button", { type: "button", textContent: text, title }));
      node.setAttribute("aria-label", title);
      node.addEventListener("click", act);
      return node;
    };
    this.play = button("▶ play", "play or pause (space)", () => this.toggle());
    this.slider = guarded(make("input", { type: "range", min: 0, step: 1 }));
    this.slider.setAttribute("aria-label", "step");
    this.slider.addEventListener("input", () => (this.pause(), this.go(this.stops[this.slider.valueAsNumber])));
    this.where = make("span", { className: "where" });
    const [back, on] = [button("◀", "step back (←)", () => this.step(-1)), button("▶", "step forward (→)", () => this.step(1))];
    this.picture.bar.append(back, this.play, on, this.slider, this.where);
  }

  go(at, moving = false) {
    this.at = at;
    const { frame, picture } = this;
    const group = picture.panels[0]?.children[2];
    if (group) paint(group, frame?.marks ?? [], { moving, seconds: frame?.passing ? 0.8 : Math.min(0.4, this.seconds) });
    if (this.slider && !frame?.passing) {
      this.slider.value = at < 0 ? this.stops.length - 1 : this.stops.indexOf(at);
      this.where.textContent = frame ? frame.name || frame.say : "all of it";
      this.slider.setAttribute("aria-valuetext", frame ? frame.say : "all of it");
    }
    picture.point(picture.focused());
  }

  step(by) {
    this.pause();
    if (by > 0) this.forward();
    else this.go([this.least, ...this.stops].filter((i) => i < this.at).at(-1) ?? this.least);
  }

  // On to the next stop, by way of the passing frames before it; false at the end. then: what to do when it is reached.
  forward(then = () => {}) {
    const next = this.frames[this.at + 1];
    if (!next) return false;
    if (next.passing && !calm()) {
      this.go(this.at + 1, true);
      this.timer = setTimeout(() => this.forward(then), 800);
    } else {
      this.go(this.at + (next.passing ? 2 : 1), !calm());
      then();
    }
    return true;
  }

  toggle() {
    if (this.timer) return this.pause();
    if (this.at + 1 >= this.frames.length) this.go(this.least);
    this.play.textContent = "❚❚ pause";
    const on = () => {
      this.timer = setTimeout(() => {
        if (this.forward(on)) return;
        this.pause();
        if (this.least < 0) this.go(-1);
      }, 1000 * this.seconds);
    };
    if (!this.forward(on)) this.pause();
    return undefined;
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.play) this.play.textContent = "▶ play";
  }

  key(key) {
    if (!this.frames.length) return false;
    const ends = { Home: this.least, End: this.stops.at(-1) };
    if (key === " ") this.toggle();
    else if (key === "ArrowLeft" || key === "ArrowRight") this.step(key === "ArrowLeft" ? -1 : 1);
    else if (key in ends) (this.pause(), this.go(ends[key]));
    else return false;
    return true;
  }
}
