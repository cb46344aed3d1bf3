// The flow table. Searching, sorting and cutting are the API's work: a sample brings the rows that
// are shown, and how many there are besides.

import { byId, element, setData, setParts, setText, tableRows } from "/dom.js";
import { bits, brief, bytes, count, endpointParts, words } from "/format.js";

const FIRST_SORT = "-bytesOutPerSecond";
const COLUMNS = [
  // title, sort field, class, text of a flow (or its parts), first order
  ["Protocol", "protocol", "", (flow) => flow.protocol],
  ["State", "state", "state", (flow) => (flow.awaitingRemoval ? "PortReclaimed" : flow.state)],
  ["VM", "vm", "name", (flow) => flow.vm],
  ["Private", "private", "mono place", (flow) => endpointParts(flow.private)],
  ["Public", "public", "mono place", (flow) => endpointParts(flow.public)],
  ["Remote", "remote", "mono place", (flow) => endpointParts(flow.remote)],
  ["Method", "method", "soft", (flow) => words(flow.method)],
  ["Out", "bytesOutPerSecond", "number", (flow) => bits(flow.bytesOutPerSecond), "-"],
  ["In", "bytesInPerSecond", "number", (flow) => bits(flow.bytesInPerSecond), "-"],
  ["Sent", "bytesOut", "number", (flow) => bytes(flow.bytesOut), "-"],
  ["Received", "bytesIn", "number", (flow) => bytes(flow.bytesIn), "-"],
  ["Age", "ageSeconds", "number time", (flow) => brief(flow.ageSeconds), "-"],
  ["Idle", "idleSeconds", "number time", (flow) => brief(flow.idleSeconds), "-"],
  ["Expires", "expiresInSeconds", "number time", (flow) => brief(flow.expiresInSeconds)],
];
const TYPING = 250;

export class Flows {
  /** `onQuery(parameters)`: others are wanted. */
  constructor(onQuery) {
    this.onQuery = onQuery;
    this.form = byId("flow-filter");
    this.sort = FIRST_SORT;
    this.frozen = false;
    this.rows = tableRows(
      byId("flow-rows"),
      COLUMNS.map(([, , name]) => name),
      COLUMNS.map(([title]) => title),
    );
    this.heads = COLUMNS.map(([title, field, name, , order = ""]) => {
      const button = element("button", { type: "button", text: title });
      button.addEventListener("click", () => this.#sortBy(field, order));
      const head = element("th", { scope: "col", role: "columnheader", class: name.startsWith("number") ? "number" : null }, button);
      byId("flow-head").append(head);
      return { head, field };
    });
    this.#showOrder();
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => this.#wait(event.target.name === "match" ? TYPING : 0));
    this.form.addEventListener("reset", () => this.#wait(0));
    byId("flow-freeze").addEventListener("click", () => this.#freeze(!this.frozen));
  }

  /** What the API is asked for. */
  get parameters() {
    const given = Object.fromEntries([...new FormData(this.form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
    return { ...given, sort: this.sort };
  }

  /** Search for a text, and show the table. */
  search(text) {
    this.form.reset();
    this.form.elements.match.value = text;
    this.#wait(0);
    byId("flows").scrollIntoView();
    this.form.elements.match.focus({ preventScroll: true });
  }

  refused(problems) {
    byId("flow-problem").hidden = problems === null;
    if (problems !== null) setText(byId("flow-problem"), problems.join("; "));
  }

  update({ total, matching, rows }) {
    if (this.frozen) return;
    const shown = rows.length < matching ? `${count(rows.length)} of ${count(matching)} shown` : `${count(matching)} shown`;
    setText(byId("flow-count"), matching === total ? shown : `${shown}, ${count(total)} in all`);
    byId("flows-empty").hidden = rows.length > 0;
    setText(byId("flows-empty"), total === 0 ? "No flow is open." : "No flow matches.");
    this.rows.update(rows, (row, flow) => {
      COLUMNS.forEach(([, , name, text], index) => {
        setParts(row.cells[index], [text(flow)].flat());
        if (name === "state") setData(row.cells[index], "state", flow.state);
      });
    });
  }

  #sortBy(field, order) {
    const now = this.sort.replace("-", "") === field;
    this.sort = now ? (this.sort.startsWith("-") ? field : `-${field}`) : `${order}${field}`;
    this.#showOrder();
    this.#wait(0);
  }

  #showOrder() {
    for (const { head, field } of this.heads) {
      const order = this.sort.startsWith("-") ? "descending" : "ascending";
      head.setAttribute("aria-sort", this.sort.replace("-", "") === field ? order : "none");
    }
  }

  #freeze(frozen) {
    this.frozen = frozen;
    byId("flow-freeze").setAttribute("aria-pressed", String(frozen));
  }

  /** Ask when nothing was typed for so long. */
  #wait(milliseconds) {
    this.#freeze(false);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.onQuery(this.parameters), milliseconds);
  }
}
