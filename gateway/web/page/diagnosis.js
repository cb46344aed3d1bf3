// What the gateway itself says is wrong, and what to do about it. A gateway that cannot tell
// (an older one) has no such section.

import { ask } from "/connection.js";
import { byId, element } from "/dom.js";

const EVERY = 10_000;
const MARKS = { critical: "■", error: "■", warning: "▲", ok: "●" };

export class Diagnosis {
  constructor() {
    this.text = "";
    this.missing = false;
  }

  /** Ask now, and again for as long as the page is live. */
  start() {
    clearTimeout(this.timer);
    this.missing = false;
    this.#look();
  }

  stop() {
    clearTimeout(this.timer);
  }

  async #look() {
    try {
      const { findings } = await ask("/v1/diagnose");
      this.#show(findings);
    } catch (error) {
      this.missing = error.status === 404;
      byId("diagnosis").hidden = true;
    }
    if (!this.missing) this.timer = setTimeout(() => this.#look(), EVERY);
  }

  #show(findings) {
    byId("diagnosis").hidden = false;
    const text = JSON.stringify(findings);
    if (text === this.text) return;
    this.text = text;
    const items = findings.map(({ severity, vm, title, text: sentence, advice }) => {
      const kind = String(severity).toLowerCase();
      const steps = (advice ?? []).map((line) => element("li", { text: typeof line === "string" ? line : line.text }));
      return element(
        "li",
        { dataset: { severity: kind } },
        element("h3", { text: `${MARKS[kind] ?? "·"} ${title}` , title: vm ?? "" }),
        element("p", { text: sentence }),
        steps.length > 0 ? element("ul", {}, ...steps) : null,
      );
    });
    byId("findings").replaceChildren(...(items.length > 0 ? items : [element("li", { dataset: { severity: "ok" }, text: "Nothing is wrong." })]));
  }
}
