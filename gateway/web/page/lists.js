// The short tables: destinations, security rules, drops, health probes.

import { byId, element, pick, setData, setParts, setText, tableRows } from "/dom.js";
import { bits, count, endpoint, endpointParts, perSecond, sentence } from "/format.js";

export class Lists {
  /** `onSearch(text)`: the flows toward a destination are asked for. */
  constructor(onSearch) {
    this.onSearch = onSearch;
    this.busiest = tableRows(byId("busiest-rows"), ["mono", "number", "number"]);
    this.rules = tableRows(byId("rule-rows"), ["wrap", "verb", "number", "number"]);
    this.drops = tableRows(byId("drop-rows"), ["wrap", "number"]);
  }

  destinations(destinations) {
    const most = Math.max(1, ...destinations.map(({ flows }) => flows));
    byId("busiest-empty").hidden = destinations.length > 0;
    this.busiest.update(destinations, (row, { remote, flows, bytesPerSecond }) => {
      if (row.pick === undefined) {
        row.pick = pick("", () => this.onSearch(row.text));
        row.share = element("span", { class: "share" });
        row.cells[0].append(row.pick, row.share);
      }
      row.text = endpoint(remote);
      setParts(row.pick, endpointParts(remote));
      row.pick.setAttribute("aria-label", `Flows toward ${row.text}`);
      row.share.style.width = `${(flows / most) * 100}%`;
      setText(row.cells[1], count(flows));
      setText(row.cells[2], bits(bytesPerSecond));
    });
  }

  ruleHits(rules) {
    const shown = rules.toSorted((a, b) => b.hits - a.hits);
    byId("rules-empty").hidden = shown.length > 0;
    this.rules.update(shown, (row, rule) => {
      const name = rule.name.replace(/^(default)?[sS]ecurityRules\//, "");
      setText(row.cells[0], `${rule.networkSecurityGroup} / ${name}`);
      setText(row.cells[1], `${rule.access} ${rule.direction === "Inbound" ? "in" : "out"}`);
      setData(row.cells[1], "access", rule.access);
      setText(row.cells[2], count(rule.hits));
      setText(row.cells[3], perSecond(rule.hitsPerSecond));
    });
  }

  dropped(drops, queue) {
    const found = Object.entries(drops ?? {}).filter(([, packets]) => packets > 0);
    // lost before the engine saw them: a host that is too slow
    for (const [name, label] of [["kernelDropped", "LostInTheKernelQueue"], ["socketDropped", "LostInTheSocketBuffer"]]) {
      if (queue?.[name] > 0) found.push([label, queue[name]]);
    }
    found.sort((a, b) => b[1] - a[1]);
    byId("drops-empty").hidden = found.length > 0;
    this.drops.update(found, (row, [reason, packets]) => {
      setText(row.cells[0], sentence(reason));
      setText(row.cells[1], count(packets));
    });
  }
}
