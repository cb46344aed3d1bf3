// Who stands behind inbound rules, and what the health probes say: those that are down first.

import { byId, element, setData, setText, tableRows } from "/dom.js";
import { endpoint } from "/format.js";
import { Polling } from "/polling.js";

const EVERY = 10_000;
const SHOWN = 30;
const RANK = { Down: 0, Unknown: 1, Up: 2 };

export class Health extends Polling {
  constructor() {
    super("/v1/health", EVERY, (records) => this.#show(records ?? []));
    this.rows = tableRows(byId("health-rows"), ["wrap", "", "wrap soft"]);
  }

  #show(records) {
    const probed = records.filter(({ status }) => status in RANK);
    probed.sort((a, b) => RANK[a.status] - RANK[b.status] || a.vm.localeCompare(b.vm, "en", { numeric: true }));
    byId("health").hidden = probed.length === 0;
    const down = probed.filter(({ status }) => status === "Down").length;
    const cut = probed.length > SHOWN ? `, ${SHOWN} shown` : "";
    setText(byId("health-count"), `${down} of ${probed.length} down${cut}`);
    this.rows.update(probed.slice(0, SHOWN), (row, record) => {
      if (row.rule === undefined) {
        row.vm = element("span");
        row.rule = element("small");
        row.cells[0].append(row.vm, row.rule);
        row.status = element("span", { class: "level" });
        row.cells[1].append(row.status);
      }
      setText(row.vm, record.vm);
      setText(row.rule, `${record.loadBalancer} / ${record.rule}, ${record.protocol} ${endpoint(record.frontend)}`);
      setData(row.status, "level", { Up: "ok", Down: "exhausted", Unknown: "near" }[record.status]);
      setText(row.status, record.status);
      const last = record.lastProbe;
      const denied = record.deniedBy == null ? "" : `, denied by ${record.deniedBy}`;
      setText(row.cells[2], last == null ? "no result yet" : `${last.reason}, ${last.milliseconds.toFixed(1)} ms${denied}`);
    });
  }
}
