// Lines over time on a canvas, with marks on the time axis. All plots of the page share one cursor:
// a moment under the pointer, or moved with the arrow keys, at which every plot tells its values.

import { clock } from "/format.js";

const LEFT = 44; // at least: labels have the room that they need
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 19;
const STEPS = [5, 10, 15, 30, 60, 120, 180, 300, 600].map((seconds) => seconds * 1000);

let colours = {};
const readColours = () => {
  const probe = document.createElement("i");
  document.body.append(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const names = ["out", "in", "fill", "bad", "warn", "muted", "line", "line-strong", "ink", "surface"];
  colours = Object.fromEntries(names.map((name) => [name, read(name)]));
  probe.remove();
};

const plots = new Set();
let moment = null; // the cursor's time; null: there is none

const redraw = () => {
  for (const plot of plots) plot.draw();
};
const moveCursor = (time) => {
  if (time === moment) return;
  moment = time;
  requestAnimationFrame(redraw);
};
document.addEventListener("colours", () => {
  colours = {};
  requestAnimationFrame(redraw);
});

/** The next 1, 2 or 5 times a power of ten. */
export const niceTop = (value, least) => {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((factor) => factor * power).find((top) => top >= wanted * 0.9999);
};

export class Plot {
  /**
   * `lines`: [{column, colour, fill}]; `scale(track)`: {top, ticks: [values], and if wanted
   * reference: a column shown as steps, high: a level, note: a text at the top};
   * `value(track, row)`: what the cursor says of a row; `tick(value)`: a label at the left.
   */
  constructor(canvas, { label, lines, scale, tick, value }) {
    Object.assign(this, { canvas, label, lines, scale, tick, value });
    this.frame = null;
    this.left = LEFT;
    canvas.className = "plot";
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-label", label);
    canvas.addEventListener("pointermove", (event) => moveCursor(this.#timeAt(event.offsetX)));
    canvas.addEventListener("pointerdown", (event) => moveCursor(this.#timeAt(event.offsetX)));
    canvas.addEventListener("pointerleave", () => moveCursor(null));
    canvas.addEventListener("blur", () => moveCursor(null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(canvas);
    plots.add(this);
  }

  remove() {
    this.observer.disconnect();
    plots.delete(this);
  }

  /** Show a track: `frame` is {track, from, to, step, bands: [[from, to]], marks: [{time, kind}]}. */
  show(frame) {
    this.frame = frame;
    this.draw();
  }

  #width() {
    return this.canvas.clientWidth;
  }

  #x(time) {
    const { from, to } = this.frame;
    return this.left + ((time - from) / (to - from)) * (this.#width() - this.left - RIGHT);
  }

  #timeAt(x) {
    if (this.frame === null) return null;
    const { from, to, track } = this.frame;
    const time = from + ((x - this.left) / (this.#width() - this.left - RIGHT)) * (to - from);
    const row = track.at(Math.min(Math.max(time, from), to) + this.frame.step / 2);
    return row < 0 ? null : track.times[row];
  }

  #key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") moveCursor(null);
    if (!(event.key in moves) || this.frame === null || this.frame.track.times.length === 0) return;
    event.preventDefault();
    const { track, from, to } = this.frame;
    const first = Math.max(track.at(from - 1) + 1, 0);
    const last = Math.max(track.at(to), first);
    const here = moment === null ? last + 1 : track.at(moment);
    moveCursor(track.times[Math.min(Math.max(here + moves[event.key], first), last)]);
  }

  draw() {
    const { canvas, frame } = this;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (frame === null || width === 0) return;
    if (colours.ink === undefined) readColours();
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${getComputedStyle(canvas).fontFamily}`;
    const { top, ticks, reference, high, note } = this.scale(frame.track);
    const y = (value) => height - BOTTOM - (value / top) * (height - BOTTOM - TOP);
    this.left = Math.max(LEFT, ...ticks.map((tick) => Math.ceil(pen.measureText(this.tick(tick)).width) + 8));
    this.#grid(pen, width, height, ticks, y);
    pen.save();
    pen.beginPath();
    pen.rect(this.left, 0, width - this.left - RIGHT + 1, height);
    pen.clip();
    this.#bands(pen, height);
    for (const line of this.lines) this.#line(pen, line, y);
    if (reference !== undefined) this.#column(pen, reference, y, "line-strong", [6, 4]);
    if (high !== undefined) this.#level(pen, width, y(high));
    this.#marks(pen, height);
    pen.restore();
    if (note !== undefined) {
      pen.fillStyle = colours.muted;
      pen.textAlign = "right";
      pen.textBaseline = "top";
      pen.fillText(note, width - RIGHT, 1);
    }
    this.#cursor(pen, width, height, y);
  }

  #grid(pen, width, height, ticks, y) {
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const tick of ticks) {
      const level = Math.round(y(tick)) + 0.5;
      pen.strokeStyle = tick === 0 ? colours["line-strong"] : colours.line;
      pen.beginPath();
      pen.moveTo(this.left, level);
      pen.lineTo(width - RIGHT, level);
      pen.stroke();
      pen.fillStyle = colours.muted;
      pen.fillText(this.tick(tick), this.left - 6, level);
    }
    const { from, to } = this.frame;
    const step = STEPS.find((each) => (each / (to - from)) * (width - this.left - RIGHT) >= 62) ?? STEPS.at(-1);
    const zone = new Date(to).getTimezoneOffset() * 60_000;
    pen.textBaseline = "alphabetic";
    pen.textAlign = "center";
    for (let time = Math.ceil((from - zone) / step) * step + zone; time <= to; time += step) {
      const x = this.#x(time);
      const label = clock(time, step < 60_000);
      const half = pen.measureText(label).width / 2;
      pen.strokeStyle = colours.line;
      pen.beginPath();
      pen.moveTo(Math.round(x) + 0.5, height - BOTTOM);
      pen.lineTo(Math.round(x) + 0.5, height - BOTTOM + 3);
      pen.stroke();
      if (x - half > this.left - 14 && x + half < width) pen.fillText(label, x, height - 4);
    }
  }

  /** Runs of row numbers without a hole: values that are null, or a pause, make one. */
  *#runs(column) {
    const { track, from, step } = this.frame;
    const values = track.columns[column];
    let run = [];
    for (let index = Math.max(track.at(from), 0); index < values.length; index += 1) {
      const hole = values[index] === null || (run.length > 0 && track.times[index] - track.times[index - 1] > 4.5 * step);
      if (hole && run.length > 0) {
        yield run;
        run = [];
      }
      if (values[index] !== null) run.push(index);
    }
    if (run.length > 0) yield run;
  }

  #line(pen, { column, colour, fill }, y) {
    const { track } = this.frame;
    const values = track.columns[column];
    for (const run of this.#runs(column)) {
      pen.beginPath();
      run.forEach((index, place) => {
        const point = [this.#x(track.times[index]), y(values[index])];
        if (place === 0) pen.moveTo(...point);
        else pen.lineTo(...point);
      });
      pen.strokeStyle = colours[colour];
      pen.lineWidth = 1.75;
      pen.lineJoin = "round";
      pen.stroke();
      if (run.length === 1) pen.fillRect(this.#x(track.times[run[0]]) - 1, y(values[run[0]]) - 1, 2, 2);
      if (!fill) continue;
      pen.lineTo(this.#x(track.times[run.at(-1)]), y(0));
      pen.lineTo(this.#x(track.times[run[0]]), y(0));
      pen.fillStyle = colours.fill;
      pen.fill();
    }
  }

  /** A value that holds until it changes, as steps. */
  #column(pen, column, y, colour, dash) {
    const { track } = this.frame;
    const values = track.columns[column];
    pen.strokeStyle = colours[colour];
    pen.lineWidth = 1.5;
    pen.setLineDash(dash);
    for (const run of this.#runs(column)) {
      pen.beginPath();
      let level = null;
      for (const index of run) {
        const x = this.#x(track.times[index]);
        if (level === null) pen.moveTo(x, y(values[index]));
        else if (level !== values[index]) pen.lineTo(x, y(level));
        pen.lineTo(x, y(values[index]));
        level = values[index];
      }
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  #level(pen, width, level) {
    pen.strokeStyle = colours.in;
    pen.lineWidth = 1.5;
    pen.setLineDash([1.5, 3]);
    pen.beginPath();
    pen.moveTo(this.left, level);
    pen.lineTo(width - RIGHT, level);
    pen.stroke();
    pen.setLineDash([]);
  }

  #bands(pen, height) {
    const base = height - BOTTOM;
    for (const [from, to] of this.frame.bands) {
      const left = this.#x(from);
      const right = Math.max(this.#x(to), left + 2);
      if (right < this.left) continue;
      pen.save();
      pen.beginPath();
      pen.rect(left, base - 8, right - left + 0.5, 8);
      pen.clip();
      pen.strokeStyle = colours.bad;
      pen.lineWidth = 2;
      // one pattern across neighbours: stripes stand where the page's own grid has them
      for (let x = Math.floor((left - 8) / 5) * 5; x < right + 8; x += 5) {
        pen.beginPath();
        pen.moveTo(x, base);
        pen.lineTo(x + 8, base - 8);
        pen.stroke();
      }
      pen.restore();
    }
  }

  #marks(pen, height) {
    const base = height - BOTTOM;
    for (const { time, kind } of this.frame.marks) {
      const x = this.#x(time);
      if (x < this.left - 6) continue;
      pen.beginPath();
      if (kind === "exhaustion") {
        pen.fillStyle = colours.bad;
        pen.moveTo(x, base - 11);
        pen.lineTo(x + 6, base);
        pen.lineTo(x - 6, base);
      } else if (kind === "probe") {
        pen.fillStyle = colours.warn;
        pen.moveTo(x, base - 10);
        pen.lineTo(x + 5, base - 5);
        pen.lineTo(x, base);
        pen.lineTo(x - 5, base - 5);
      } else {
        pen.fillStyle = colours["line-strong"];
        pen.rect(Math.round(x), TOP, 1, base - TOP);
      }
      pen.closePath();
      pen.fill();
      if (kind === "exhaustion" || kind === "probe") {
        pen.strokeStyle = colours.surface;
        pen.lineWidth = 1;
        pen.stroke();
      }
    }
  }

  #cursor(pen, width, height, y) {
    const { track, from, to, step } = this.frame;
    const { canvas } = this;
    const row = track.at(moment === null ? to : moment);
    const shown = row >= 0 && (moment === null || moment - track.times[row] <= 4.5 * step);
    canvas.setAttribute("aria-valuemin", String(Math.round((from - to) / 1000)));
    canvas.setAttribute("aria-valuemax", "0");
    canvas.setAttribute("aria-valuenow", String(shown ? Math.min(0, Math.round((track.times[row] - to) / 1000)) : 0));
    canvas.setAttribute("aria-valuetext", shown ? `${clock(track.times[row])}: ${this.value(track, row)}` : "no value");
    if (moment === null || !shown || moment < from || moment > to) return;
    const x = Math.round(this.#x(track.times[row])) + 0.5;
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x, TOP);
    pen.lineTo(x, height - BOTTOM);
    pen.stroke();
    for (const { column, colour } of this.lines) {
      const value = track.columns[column][row];
      if (value === null) continue;
      pen.beginPath();
      pen.arc(x, y(value), 3.5, 0, 2 * Math.PI);
      pen.fillStyle = colours[colour];
      pen.fill();
      pen.strokeStyle = colours.surface;
      pen.stroke();
    }
    const label = `${clock(track.times[row])}  ${this.value(track, row)}`;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    const size = pen.measureText(label).width + 10;
    const left = Math.min(Math.max(x - size / 2, this.left), Math.max(width - RIGHT - size, this.left));
    pen.fillStyle = colours.ink;
    pen.beginPath();
    pen.roundRect(left, 0, size, 17, 4);
    pen.fill();
    pen.fillStyle = colours.surface;
    pen.fillText(label, left + 5, 9);
  }
}
