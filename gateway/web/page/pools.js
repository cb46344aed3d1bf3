// The SNAT ports: a card for each VM, public IP and protocol, with its plot. Who has run out comes
// first, is named at the top of the page, and is announced to screen readers.

import { byId, element, setData, setText } from "/dom.js";
import { count, words } from "/format.js";
import { Plot, niceTop } from "/plot.js";
import { rises } from "/series.js";

const NEAR = 0.8;
const LATELY = 15_000; // a dropped packet so long ago still counts as exhaustion
const SHOWN = 6;
const RANK = { exhausted: 0, near: 1, ok: 2, unused: 3 };

/** How a pool stands at a time: its level, and the word for it. */
const standing = (pool, refusedAt, now) => {
  const refused = refusedAt !== null && now - refusedAt < LATELY;
  const full = pool.allocated > 0 && pool.used >= pool.allocated;
  if (refused) return ["exhausted", "Exhausted"];
  if (full) return ["exhausted", "Full"];
  if (pool.allocated > 0 && pool.used >= NEAR * pool.allocated) return ["near", "Nearly full"];
  if (pool.highWater === 0 && pool.failed === 0) return ["unused", "Unused"];
  return ["ok", "OK"];
};

export class Pools {
  /** `onFlows(vm)`: the flows of a VM are asked for. */
  constructor(onFlows) {
    this.onFlows = onFlows;
    this.cards = new Map();
    this.levels = new Map();
    this.serial = 0;
    this.everything = false;
    this.more = byId("pools-more");
    this.more.addEventListener("click", () => {
      this.everything = !this.everything;
      this.update(this.last);
    });
  }

  /** `view`: {pools, now, from, step, marksOf(pool)}. */
  update(view) {
    this.last = view;
    const found = [];
    for (const [key, { document: pool, track, refusedAt }] of view.pools) {
      if (pool === null) continue;
      const [level, word] = standing(pool, refusedAt, view.now);
      found.push({ key, pool, track, level, word });
    }
    found.sort((a, b) => RANK[a.level] - RANK[b.level] || compare(a.pool, b.pool));
    const shown = this.everything ? found : found.slice(0, SHOWN);
    this.#button(found.length - SHOWN);
    setText(byId("pools-empty"), found.length === 0 ? "No VM has SNAT ports." : "");
    byId("pools-empty").hidden = found.length > 0;
    this.#arrange(shown, view);
    this.#alarm(found);
    return found;
  }

  #button(others) {
    this.more.hidden = others <= 0;
    this.more.setAttribute("aria-expanded", String(this.everything));
    setText(this.more, this.everything ? "Show fewer" : `Show ${count(others)} more`);
  }

  #arrange(shown, view) {
    const container = byId("pools");
    const wanted = new Set(shown.map(({ key }) => key));
    for (const [key, card] of this.cards) {
      if (wanted.has(key)) continue;
      card.plot.remove();
      card.node.remove();
      this.cards.delete(key);
    }
    shown.forEach((entry, index) => {
      const card = this.cards.get(entry.key) ?? this.#card(entry);
      if (container.children[index] !== card.node) container.insertBefore(card.node, container.children[index] ?? null);
      this.#fill(card, entry, view);
    });
  }

  #card({ key, pool }) {
    this.serial += 1;
    const part = (tag, name) => element(tag, { class: name });
    const parts = {
      level: part("span", "level"),
      used: element("b"),
      allocated: element("span"),
      via: part("p", "via"),
      rest: part("p", "rest"),
      canvas: element("canvas"),
    };
    const title = element("h3", { id: `pool-${this.serial}`, text: pool.vm, title: pool.vm });
    const node = element(
      "article",
      { class: "pool", "aria-labelledby": title.id, dataset: { vm: pool.vm, publicIp: pool.publicIp, protocol: pool.protocol } },
      element("div", { class: "name" }, title, element("span", { class: "protocol", text: pool.protocol }), parts.level),
      element("p", { class: "use" }, parts.used, parts.allocated),
      parts.via,
      parts.canvas,
      parts.rest,
    );
    const plot = new Plot(parts.canvas, {
      label: `${pool.vm} ${pool.protocol} ports on ${pool.publicIp} over time`,
      lines: [{ column: "used", colour: "out", fill: true }],
      scale: (track) => scale(track),
      tick: (value) => count(value),
      value: (track, row) => `${count(track.columns.used[row])} of ${count(track.columns.allocated[row])}`,
    });
    const figures = {};
    for (const [name, label] of [["free", "free"], ["high", "high water"], ["cooling", "cooling down"], ["refused", "packets dropped"]]) {
      figures[name] = element("b");
      figures[`${name}Part`] = element("span", {}, figures[name], ` ${label}`);
      parts.rest.append(figures[`${name}Part`]);
    }
    const link = element("button", { type: "button", class: "link", text: "Flows", "aria-label": `Flows of ${pool.vm}` });
    link.addEventListener("click", () => this.onFlows(pool.vm));
    parts.rest.append(link);
    const card = { node, title, plot, figures, ...parts };
    this.cards.set(key, card);
    return card;
  }

  #fill(card, { pool, track, level, word }, view) {
    setData(card.node, "level", level);
    setData(card.level, "level", level);
    setText(card.level, word);
    setText(card.used, count(pool.used));
    setText(card.allocated, `of ${count(pool.allocated)} in use`);
    setText(card.via, `${pool.publicIp} · ${words(pool.method)}`);
    setText(card.figures.free, count(pool.free));
    setText(card.figures.high, count(pool.highWater));
    setText(card.figures.cooling, count(pool.coolDown));
    setText(card.figures.refused, count(pool.failed));
    card.figures.coolingPart.hidden = !pool.coolDown;
    card.figures.refusedPart.hidden = pool.failed === 0;
    card.figures.refusedPart.className = pool.failed > 0 ? "bad" : "";
    const bands = rises(track, "failed");
    card.plot.show({ track, from: view.from, to: view.now, step: view.step, bands, marks: view.marksOf(pool) });
  }

  #alarm(found) {
    const alarm = byId("alarm");
    const out = found.filter(({ level }) => level === "exhausted");
    alarm.hidden = out.length === 0;
    const lines = out.slice(0, 4).map(({ key, pool, word }) => {
      const sentence = `${pool.vm}: ${pool.protocol} ports on ${pool.publicIp} ${word === "Full" ? "are all in use" : "exhausted"}`;
      return element("a", { href: `#${this.cards.get(key)?.title.id ?? "ports"}`, text: sentence });
    });
    if (out.length > 4) lines.push(element("span", { text: `and ${out.length - 4} more` }));
    const before = [...alarm.children].map((child) => child.textContent + child.href).join("\n");
    if (before !== lines.map((child) => child.textContent + child.href).join("\n")) alarm.replaceChildren(...lines);
    document.title = out.length > 0 ? `▲ ${out.length} exhausted – snatgw` : "snatgw";
    this.#announce(found);
  }

  #announce(found) {
    const news = [];
    for (const { key, pool, level } of found) {
      const before = this.levels.get(key);
      this.levels.set(key, level);
      const what = `${pool.protocol} ports on ${pool.publicIp}`;
      if (level === "exhausted" && before !== "exhausted") news.push(`${pool.vm} has run out of ${what}`);
      else if (level !== "exhausted" && before === "exhausted") news.push(`${pool.vm} has ${what} again`);
    }
    if (news.length > 0) setText(byId("announcement"), news.slice(0, 5).join(". "));
  }
}

const compare = (a, b) =>
  a.vm.localeCompare(b.vm, "en", { numeric: true }) ||
  a.protocol.localeCompare(b.protocol) ||
  a.publicIp.localeCompare(b.publicIp, "en", { numeric: true });

const scale = (track) => {
  const allocated = track.columns.allocated.reduce((most, value) => Math.max(most, value ?? 0), 0);
  const used = track.columns.used.reduce((most, value) => Math.max(most, value ?? 0), 0);
  const high = track.last("highWater") ?? 0;
  const top = Math.max(allocated, used, high, 1);
  // a VM that uses a few of very many ports: its own scale, or nothing would be seen
  const close = used > 0 && Math.max(used, high) < top / 25;
  const shown = close ? niceTop(Math.max(used, high), 4) : top;
  return {
    top: shown * 1.1,
    ticks: [0, shown / 2, shown],
    reference: close ? undefined : "allocated",
    high: high > 0 && high < top ? high : undefined,
    note: close ? `↑ allocation ${count(allocated)}` : undefined,
  };
};
