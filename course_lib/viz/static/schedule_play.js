// Time in the picture: a cursor that sweeps over it, and what each rank holds when it passes.

class Player {
  constructor(el) {
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.nodes = Object.fromEntries(["play", "slider", "clock", "cursor", "veil"].map((name) => [name, el.querySelector(`.${name}`)]));
    [this.time, this.frame, this.timer] = [null, 0, 0];
    this.nodes.play.addEventListener("click", () => this.toggle());
    this.nodes.slider.addEventListener("input", () => {
      this.pause();
      this.show((this.nodes.slider.valueAsNumber / 1000) * this.gantt.sim.makespan);
    });
  }

  // Another picture: time stays where it is, if it still is.
  attach(gantt, svg) {
    Object.assign(this, { gantt, bars: svg.querySelectorAll(".peak"), counts: svg.querySelectorAll(".holds") });
    if (this.time > gantt.sim.makespan) this.time = null;
    this.show(this.time);
  }

  // The picture at a time; null is all of it, with what is held at most.
  show(time) {
    const { gantt, bars, counts, nodes } = this;
    const { sim } = gantt;
    this.time = time;
    const [x, right] = [gantt.x(time ?? sim.makespan), gantt.x(sim.makespan)];
    nodes.cursor.hidden = nodes.veil.hidden = time === null;
    nodes.cursor.style.transform = `translate(${x}px, ${TOP - 4}px)`;
    nodes.cursor.style.height = `${gantt.bottom - TOP + 2}px`;
    Object.assign(nodes.veil.style, { left: `${x}px`, top: `${TOP}px`, width: `${right - x}px`, height: `${gantt.bottom - TOP}px` });
    sim.ranks.forEach((rank, r) => {
      const held = time === null ? sim.peaks[r] : heldAt(rank, time);
      if (counts[r].textContent !== String(held)) counts[r].textContent = held;
      bars[r].setAttribute("width", tenths((BAR * held) / gantt.bars[1]) / 10);
    });
    nodes.slider.value = time === null ? 1000 : (1000 * time) / sim.makespan;
    nodes.clock.textContent = time === null ? "all of it" : this.said(time);
    nodes.slider.setAttribute("aria-valuetext", nodes.clock.textContent);
  }

  said(time) {
    const { ranks, makespan, p } = this.gantt.sim;
    const busy = ranks.filter((rank) => rank.some(({ start, end }) => start <= time && time < end)).length;
    const decimals = Math.max(0, Math.ceil(2 - Math.log10(makespan)));
    return `${time.toFixed(Math.min(4, decimals))} s: ${busy} of ${p} work`;
  }

  get playing() {
    return Boolean(this.frame || this.timer);
  }

  toggle() {
    if (this.playing) return this.pause();
    if (this.time === null || this.time >= this.gantt.sim.makespan) this.show(0);
    this.nodes.play.textContent = "❚❚ pause";
    if (this.calm.matches) return this.step();
    let last = performance.now();
    const tick = (now) => {
      const gone = Math.max(0, now - last) / 9000; // all of it takes nine seconds
      last = now;
      if (this.go(gone)) this.frame = requestAnimationFrame(tick);
    };
    this.frame = requestAnimationFrame(tick);
  }

  step() { // for who wants no motion: a picture each half second
    this.timer = setTimeout(() => this.go(1 / 18) && this.step(), 500);
  }

  // On by a share of it all; false at the end.
  go(share) {
    const { makespan } = this.gantt.sim;
    const time = this.time + share * makespan;
    if (time < makespan) this.show(time);
    else {
      this.pause();
      this.show(null);
    }
    return time < makespan;
  }

  pause() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    [this.frame, this.timer] = [0, 0];
    this.nodes.play.textContent = "▶ play";
  }
}
