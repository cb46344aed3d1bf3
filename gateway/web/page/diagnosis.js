// What the gateway itself says is wrong, and what to do about it.

import { Rows, byId, element, setData, setText } from "/dom.js";
import { count } from "/format.js";
import { Polling } from "/polling.js";

const EVERY = 15_000; // it visits every flow
const SHOWN = 8;
const MARKS = { critical: "■", warning: "▲", good: "●" };

export class Diagnosis extends Polling {
  constructor() {
    super("/v1/diagnose", EVERY, (answer) => this.#show(answer?.findings ?? []));
    this.rows = new Rows(byId("findings"), make);
  }

  #show(findings) {
    byId("diagnosis").hidden = findings.length === 0;
    this.rows.update(findings.slice(0, SHOWN), fill);
    const others = findings.length - SHOWN;
    byId("findings-more").hidden = others <= 0;
    setText(byId("findings-more"), `${count(others)} more: snatgw diagnose lists them all.`);
  }
}

const make = () => {
  const parts = { mark: element("span", { class: "mark", "aria-hidden": "true" }), title: element("b"), text: element("p"), list: element("ul") };
  const details = element("details", {}, element("summary", {}, parts.mark, parts.title), parts.text, parts.list);
  const steps = new Rows(parts.list, () => ({ node: element("li") }));
  return { node: element("li", {}, details), details, steps, ...parts };
};

const fill = (row, { severity, vm, title, text, advice }, index) => {
  const kind = severity.toLowerCase();
  const key = `${vm} ${title}`;
  // what the reader has opened stays open for as long as it is about the same
  if (row.key !== key) row.details.open = index === 0 && kind === "critical";
  row.key = key;
  setData(row.node, "severity", kind);
  setText(row.mark, MARKS[kind] ?? "·");
  setText(row.title, title);
  setText(row.text, text);
  row.list.hidden = advice.length === 0;
  row.steps.update(advice, (step, line) => setText(step.node, line));
};
