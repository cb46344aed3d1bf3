// The page: its parts, the line to the gateway, and what goes from one to the other.

import { Connection } from "/connection.js";
import { Diagnosis } from "/diagnosis.js";
import { byId, element, setData, setText } from "/dom.js";
import { Events } from "/events.js";
import { Explain } from "/explain.js";
import { Flows } from "/flows.js";
import { clock, duration } from "/format.js";
import { Health } from "/health.js";
import { Lists } from "/lists.js";
import { Pools } from "/pools.js";
import { Series } from "/series.js";
import { Figures, Traffic } from "/traffic.js";

const series = new Series();
const events = new Events();
const figures = new Figures();
const traffic = new Traffic();
const explain = new Explain();
const diagnosis = new Diagnosis();
const health = new Health();
const flows = new Flows((parameters) => connection.setFlows(parameters));
const pools = new Pools((vm) => flows.search(vm));
const lists = new Lists((text) => flows.search(text));

let gateway = null; // the last sample's
let started = null; // of the gateway that was seen last
let since = null; // when the line was lost

const range = () => Number(byId("range").querySelector("input:checked").value) * 1000;

const draw = () => {
  if (gateway === null) return;
  const frame = { from: series.now - range(), to: series.now, now: series.now, step: series.step };
  const found = pools.update({ ...frame, pools: series.pools, marksOf: (pool) => events.marks(pool) });
  figures.update(gateway, found);
  traffic.update({ ...frame, track: series.gateway, marks: events.marks() });
  setText(byId("uptime"), `up ${duration((series.now - started) / 1000)}`);
};

const introduce = (status) => {
  const parts = [status.profile, `${status.inside.join(", ")} → ${status.outside}`];
  if (status.timeScale !== 1) parts.push(`timers ×${status.timeScale}`);
  byId("where").title = parts.join(" · "); // it may be cut off
  byId("where").replaceChildren(...parts.map((text) => element("span", { text })), element("span", { id: "uptime" }));
  const offset = -new Date().getTimezoneOffset();
  const zone = `UTC${offset < 0 ? "−" : "+"}${Math.floor(Math.abs(offset) / 60)}${offset % 60 ? `:${Math.abs(offset) % 60}` : ""}`;
  const scale = status.timeScale === 1 ? "" : ` Flow timers are in Azure's seconds, of which ${status.timeScale} pass in one.`;
  setText(byId("about"), `snatgw ${status.version}. Times of day are this browser's (${zone}).${scale}`);
};

const connection = new Connection({
  onStart: ({ status, history }) => {
    started = Date.parse(status.startedAt);
    series.load(history);
    introduce(status);
    events.add(history.events ?? []);
    diagnosis.start();
    health.start();
  },
  onSample: (sample) => {
    gateway = sample.gateway;
    series.add(sample);
    if (events.add(sample.events ?? []).some(({ kind }) => kind === "probe")) health.start();
    draw();
    flows.update(sample.flows);
    lists.destinations(sample.destinations);
    lists.ruleHits(sample.rules ?? []);
    lists.dropped(sample.gateway.drops, sample.gateway.queue);
    const vms = [...new Set(sample.ports.map(({ vm }) => vm))].sort().slice(0, 200);
    explain.offer(vms, [...new Set(sample.destinations.map(({ remote }) => remote.ip))]);
  },
  onState: (state, error) => {
    setData(byId("connection"), "state", state);
    document.body.classList.toggle("stale", state === "lost");
    if (state === "lost" || state === "resting") {
      diagnosis.stop();
      health.stop();
    }
    if (state === "lost") {
      since ??= Date.now();
      const why = error?.status === 401 ? "open the address with the token again" : ["trying again", ...(error?.problems ?? [])].join(": ");
      setText(byId("connection-text"), `No connection since ${clock(since)}, ${why}`);
    } else {
      if (state === "live") since = null;
      setText(byId("connection-text"), state === "live" ? "Live" : "Connecting…");
    }
  },
  onEvents: (past) => events.add(past),
  onRefused: (problems) => flows.refused(problems),
});

byId("range").addEventListener("change", draw);
connection.flows = flows.parameters;
connection.start();
document.documentElement.dataset.runs = "yes"; // to loading.js
