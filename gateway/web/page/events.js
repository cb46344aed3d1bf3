// Events as sentences, in a list and on the plots' time axis.

import { Rows, byId, element, setData, setText } from "/dom.js";
import { count, endpoint, moment, sentence, words } from "/format.js";

const KEPT = 500;
const SHOWN = 150;
const MARKS = { exhaustion: "▲", probe: "◆", error: "■", warning: "◆", start: "❙", plain: "·" };
const MILESTONES = ["Started", "Stopped", "Reloaded", "HostRestored"];

/** What an event is, and how it reads: {kind, title, more, notable, vm, publicIp, protocol}. */
export const told = (event) => {
  const { properties: p, level } = event;
  const name = event.operationName.split("/").at(-1); // Azure's have a path in front
  if (p.eventDescription === "Ports exhausted") {
    const publicIp = p.eventProperties?.["public ip address"];
    return {
      kind: "exhaustion",
      title: `${p.vm} ran out of ${p.protocol} ports`,
      more: `${publicIp} → ${endpoint(p.remote)}, ${count(p.count)} dropped`,
      notable: true,
      vm: p.vm,
      publicIp,
      protocol: p.protocol,
    };
  }
  if (name === "PacketsDropped") {
    const rule = p.rule ? ` by ${p.rule}` : "";
    return {
      kind: "plain",
      title: `${sentence(p.reason)}${rule}`,
      more: `${count(p.count)} dropped: ${p.vm ? `${p.vm} ` : ""}${p.protocol} ${p.source} → ${p.destination}`,
      notable: false,
    };
  }
  if (name === "LoadBalancerProbeHealthStatus") {
    return {
      kind: "probe",
      title: `${p.vm} is ${p.status === "Up" ? "up" : "down"} by probe ${p.probe}`,
      more: `rule ${p.rule} on ${p.publicIpAddress}:${p.port}, ${count(p.dipDownCount)} of ${count(p.totalDipCount)} down`,
      notable: true,
    };
  }
  const kind = /probe|backend/i.test(name) ? "probe" : level === "Error" ? "error" : level === "Warning" ? "warning" : MILESTONES.includes(name) ? "start" : "plain";
  return { kind, title: sentence(name), more: p.Description ?? listed(p), notable: kind !== "plain" };
};

// Lists whose lines do not say by themselves what has become of what they name.
const BEFORE = { interfaces: "made again: ", over: "over: " };

const listed = (properties) =>
  Object.entries(properties)
    .filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && value.length === 0))
    .map(([name, value]) => (typeof value === "object" ? (Array.isArray(value) ? `${BEFORE[name] ?? ""}${value.slice(0, 3).join("; ")}` : endpoint(value)) : `${words(name)} ${value}`))
    .join(", ");

export class Events {
  constructor() {
    this.list = [];
    this.known = new Set();
    this.rows = new Rows(byId("event-list"), () => {
      const parts = { time: element("time"), mark: element("span", { class: "mark", "aria-hidden": "true" }), title: element("b"), more: element("small") };
      return { node: element("li", {}, parts.time, parts.mark, element("p", {}, parts.title, parts.more)), ...parts };
    });
    byId("event-kinds").addEventListener("change", () => this.show());
  }

  /** Add what is new among these, and tell what that was. */
  add(events) {
    const news = [];
    for (const event of events) {
      const key = JSON.stringify(event);
      if (this.known.has(key)) continue;
      this.known.add(key);
      news.push({ key, event, time: Date.parse(event.time), ...told(event) });
    }
    if (news.length === 0) return news;
    this.list.push(...news);
    this.list.sort((a, b) => a.time - b.time);
    for (const { key } of this.list.splice(0, this.list.length - KEPT)) this.known.delete(key);
    this.show();
    return news;
  }

  /** Marks on the time axis: of a pool, or (no pool) of everything. */
  marks(pool) {
    return this.list.filter(
      ({ kind, vm, publicIp, protocol, event }) =>
        event.operationName === "Started" ||
        (kind === "probe" && pool === undefined) ||
        (kind === "exhaustion" && (pool === undefined || (vm === pool.vm && publicIp === pool.publicIp && protocol === pool.protocol))),
    );
  }

  show() {
    const all = byId("event-kinds").querySelector("input:checked").value === "all";
    const shown = this.list.filter(({ notable }) => all || notable).slice(-SHOWN).reverse();
    byId("events-empty").hidden = shown.length > 0;
    byId("event-list").hidden = shown.length === 0;
    this.rows.update(shown, (row, entry) => {
      setData(row.node, "kind", entry.kind);
      setText(row.time, moment(entry.time, Date.now()));
      row.time.dateTime = entry.event.time;
      row.time.title = entry.event.time;
      setText(row.mark, MARKS[entry.kind]);
      setText(row.title, entry.title);
      setText(row.more, entry.more);
    });
  }
}
