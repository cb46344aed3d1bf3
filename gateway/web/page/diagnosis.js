// What the gateway itself says is wrong, and what to do about it. A gateway that cannot tell
// (an older one) has no such section.

import { ask } from "/connection.js";
import { byId, element, setText } from "/dom.js";

const EVERY = 15_000; // more where the answer takes its time: it looks at every flow
const SHARE = 0.1; // of the time, in which the gateway may be busy with it
const SHOWN = 5;
const MARKS = { critical: "■", warning: "▲", good: "●" };

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
    const begin = performance.now();
    try {
      const { findings } = await ask("/v1/diagnose", {}, 60_000);
      this.#show(findings);
    } catch (error) {
      this.missing = error.status === 404;
      byId("diagnosis").hidden = true;
    }
    const pause = Math.max(EVERY, (performance.now() - begin) / SHARE);
    if (!this.missing) this.timer = setTimeout(() => this.#look(), pause);
  }

  #show(findings) {
    byId("diagnosis").hidden = false;
    const text = JSON.stringify(findings);
    if (text === this.text) return;
    this.text = text;
    byId("findings").replaceChildren(...findings.slice(0, SHOWN).map(item));
    const rest = findings.slice(SHOWN);
    byId("findings-more").hidden = rest.length === 0;
    setText(byId("findings-count"), `${rest.length} more`);
    byId("findings-rest").replaceChildren(...rest.map(item));
  }
}

const item = ({ severity, title, text, advice }) => {
  const kind = severity.toLowerCase();
  const steps = (advice ?? []).map((line) => element("li", { text: line }));
  return element(
    "li",
    { dataset: { severity: kind } },
    element("h3", {}, element("span", { class: "mark", "aria-hidden": "true", text: MARKS[kind] ?? "·" }), ` ${title}`),
    element("p", { text }),
    steps.length > 0 ? element("ul", {}, ...steps) : null,
  );
};
