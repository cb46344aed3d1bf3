// The gateway as a whole: six figures of now, and its traffic over time.

import { byId, element, setText } from "/dom.js";
import { bitRate, bits, count, percent, perSecond } from "/format.js";
import { Plot, niceTop } from "/plot.js";

const most = (track, columns) =>
  columns.reduce((all, name) => Math.max(all, track.columns[name].reduce((top, value) => Math.max(top, value ?? 0), 0)), 0);

const scaleOf = (columns, least, factor = 1) => (track) => {
  const top = niceTop(most(track, columns) * factor * 1.02, least) / factor;
  return { top: top * 1.06, ticks: [0, top / 2, top] };
};

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const compactBits = (value) => {
  const [number, unit] = bitRate(value);
  return `${Number(number)}${unit.replace("bit/s", "").toUpperCase()}`;
};

const PLOTS = [
  {
    title: "Throughput, bit/s",
    legend: [["out", "out", "bytesOutPerSecond", bits], ["in", "in", "bytesInPerSecond", bits]],
    lines: [{ column: "bytesInPerSecond", colour: "in" }, { column: "bytesOutPerSecond", colour: "out" }],
    scale: scaleOf(["bytesOutPerSecond", "bytesInPerSecond"], 1000, 8),
    tick: compactBits,
    value: (track, row) => `out ${bits(track.columns.bytesOutPerSecond[row])}, in ${bits(track.columns.bytesInPerSecond[row])}`,
  },
  {
    title: "Packets",
    legend: [["out", "a second", "packetsPerSecond", perSecond]],
    lines: [{ column: "packetsPerSecond", colour: "out", fill: true }],
    scale: scaleOf(["packetsPerSecond"], 10),
    tick: (value) => short.format(value),
    value: (track, row) => `${perSecond(track.columns.packetsPerSecond[row])} a second`,
  },
  {
    title: "Flows",
    legend: [["out", "live", "flows", count]],
    lines: [{ column: "flows", colour: "out", fill: true }],
    scale: scaleOf(["flows"], 10),
    tick: (value) => short.format(value),
    value: (track, row) => `${count(track.columns.flows[row])} flows`,
  },
  {
    title: "Dropped packets",
    legend: [["in", "a second", "dropsPerSecond", perSecond]],
    lines: [{ column: "dropsPerSecond", colour: "in" }],
    scale: scaleOf(["dropsPerSecond"], 10),
    tick: (value) => short.format(value),
    value: (track, row) => `${perSecond(track.columns.dropsPerSecond[row])} a second`,
  },
];

export class Traffic {
  constructor() {
    this.plots = PLOTS.map((settings) => {
      const canvas = element("canvas");
      const values = settings.legend.map(([colour, label, column, format]) => {
        const value = element("b");
        return { value, column, format, node: element("span", {}, element("i", { class: `key ${colour}` }), `${label} `, value) };
      });
      const caption = element("figcaption", {}, element("b", { text: settings.title }), element("span", { class: "legend" }, ...values.map(({ node }) => node)));
      byId("plots").append(element("figure", {}, caption, canvas));
      return { plot: new Plot(canvas, { label: `${settings.title} over time`, ...settings }), values };
    });
  }

  /** `frame` as plots have it, without bands. */
  update(frame) {
    for (const { plot, values } of this.plots) {
      for (const { value, column, format } of values) setText(value, format(frame.track.last(column)));
      plot.show({ ...frame, bands: [] });
    }
  }
}

export class Figures {
  constructor() {
    this.parts = ["Fullest port pool", "Flows", "New flows", "Out", "In", "Dropped packets"].map((label) => {
      const [number, unit] = [element("span"), element("small")];
      const value = element("dd", { class: "value" }, number, unit);
      const more = element("dd", { class: "more", text: "\u00a0" });
      const node = element("div", {}, element("dt", { text: label }), value, more);
      byId("figures").append(node);
      return { node, number, unit, more };
    });
  }

  update(gateway, pools) {
    const fullest = pools.reduce((most, { pool }) => (share(pool) > share(most) ? pool : most), null);
    const exhausted = pools.some(({ level }) => level === "exhausted");
    const known = (rate) => (rate == null ? ["–", ""] : bitRate(rate));
    this.#fill(0, fullest === null ? ["–", ""] : [percent(share(fullest)), "%"],
      fullest === null ? "no pool" : `${fullest.vm} ${fullest.protocol}, ${count(fullest.used)} of ${count(fullest.allocated)}`, exhausted);
    this.#fill(1, [count(gateway.flows), ""], `of ${count(gateway.maximumFlows)} at most`, gateway.flows >= gateway.maximumFlows);
    const refused = pools.reduce((sum, { pool }) => sum + pool.failed, 0);
    this.#fill(2, [perSecond(gateway.newFlowsPerSecond), "/s"], `${count(refused)} packets got no port`);
    this.#fill(3, known(gateway.bytesOutPerSecond), `${perSecond(gateway.packetsOutPerSecond)} packets/s`);
    this.#fill(4, known(gateway.bytesInPerSecond), `${perSecond(gateway.packetsInPerSecond)} packets/s`);
    const dropped = Object.values(gateway.drops ?? {}).reduce((sum, value) => sum + value, 0);
    this.#fill(5, [perSecond(gateway.dropsPerSecond), "/s"], `${count(dropped)} since the start`, gateway.dropsPerSecond > 0);
  }

  #fill(index, [number, unit], more, bad = false) {
    const part = this.parts[index];
    setText(part.number, number);
    setText(part.unit, unit);
    setText(part.more, more);
    part.more.title = more; // it may be cut off
    part.node.classList.toggle("bad", bad);
  }
}

const share = (pool) => (pool === null || pool.allocated === 0 ? -1 : pool.used / pool.allocated);
