// The form that asks what would happen to a packet, and its answer.

import { ask } from "/connection.js";
import { byId, element, setText } from "/dom.js";
import { count, words } from "/format.js";

const MARKS = { Allow: "✓", Deny: "✕", Drop: "⊘" };
const VERDICTS = { Allow: "Allowed", Deny: "Denied", Drop: "Dropped" };

export class Explain {
  constructor() {
    this.form = byId("explain-form");
    this.answer = byId("explain-answer");
    this.options = "";
    this.form.addEventListener("change", () => this.#shape());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.#shape();
  }

  /** Names and addresses to choose from. */
  offer(vms, remotes) {
    const options = JSON.stringify([vms, remotes]);
    if (options === this.options) return;
    this.options = options;
    for (const [id, values] of [["vms", vms], ["remotes", remotes]]) {
      byId(id).replaceChildren(...values.map((value) => element("option", { value })));
    }
  }

  get #values() {
    return Object.fromEntries([...new FormData(this.form)].map(([name, value]) => [name, value.trim()]));
  }

  #shape() {
    const { direction, protocol } = this.#values;
    for (const part of this.form.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== direction;
    for (const part of this.form.querySelectorAll("[data-inbound]")) setText(part, part.dataset[direction]);
    // an echo has no ports; its identifier is the source port of the API
    for (const part of this.form.querySelectorAll("[data-port]")) part.hidden = protocol === "icmp";
    const { vm, from, fromPort, toPort } = this.form.elements;
    vm.required = direction === "outbound";
    from.required = direction === "inbound";
    toPort.required = protocol !== "icmp";
    fromPort.required = direction === "inbound" && protocol !== "icmp";
    fromPort.placeholder = direction === "inbound" ? "50000" : "any";
  }

  /** The API's parameters for what the form says. */
  get parameters() {
    const { direction, protocol, vm, from, fromPort, to, toPort } = this.#values;
    const icmp = protocol === "icmp";
    const target = icmp ? `${to}/icmp` : `${to}:${toPort}/${protocol}`;
    if (direction === "inbound") return { inbound: "1", from: icmp ? from : `${from}:${fromPort}`, to: target };
    return { vm, to: target, ...(fromPort && !icmp ? { fromPort } : {}) };
  }

  async #ask() {
    const turn = Symbol("turn");
    this.turn = turn;
    let parts;
    try {
      parts = shown(await ask("/v1/explain", this.parameters));
    } catch (error) {
      const problems = error.problems?.length ? error.problems : [error.message];
      parts = problems.map((problem) => element("p", { class: "problem", text: problem }));
    }
    if (this.turn === turn) this.answer.replaceChildren(...parts);
  }
}

const shown = (answer) => {
  const verdict = element(
    "div",
    { class: "verdict", dataset: { verdict: answer.verdict } },
    element("b", { text: `${MARKS[answer.verdict] ?? ""} ${VERDICTS[answer.verdict] ?? answer.verdict}` }),
    element("p", { text: answer.reason }),
  );
  const levels = answer.networkSecurityGroups.map((level) => {
    const rule = `${level.rule}${level.default ? " (default rule)" : ""}`;
    return element("li", {}, element("span", { class: "verb", dataset: { access: level.access }, text: level.access }), ` by ${rule} of ${level.name}, ${words(level.level)}`);
  });
  const groups = levels.length > 0 ? element("ol", {}, ...levels) : element("p", { text: "none in front of it" });
  const rows = answer.candidates.map(({ publicIp, portsFree }) =>
    element("tr", {}, element("td", { class: "mono", text: publicIp }), element("td", { class: "number", text: portsFree === null ? "needs none" : `${count(portsFree)} free` })),
  );
  const head = element("tr", {}, element("th", { scope: "col", text: "Public IP" }), element("th", { scope: "col", class: "number", text: "Ports toward it" }));
  const candidates = rows.length > 0 ? element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)) : element("p", { text: "none" });
  const part = (title, ...children) => element("div", {}, element("h3", { text: title }), ...children);
  const flow = answer.existingFlow == null ? null : part("Existing flow", element("p", { text: `It belongs to live flow ${answer.existingFlow}.` }));
  const method = part("Method", element("p", { text: answer.method ? words(answer.method) : "none" }));
  return [verdict, element("div", { class: "details" }, part("Network security groups", groups), method, part("Candidates", candidates), flow)];
};
