// What no sample brings, asked for now and then while the line is up: diagnosis and probes. Asked
// less often where the answer takes its time, and not while the page is hidden. A gateway that cannot tell
// is not asked again.

import { ask } from "/connection.js";

const SHARE = 0.1; // of the time, in which the gateway may be busy with it
const PATIENCE = 60_000;

export class Polling {
  /** `onAnswer(body)`, or null where there is none. `every`: milliseconds. */
  constructor(path, every, onAnswer) {
    Object.assign(this, { path, every, onAnswer });
    this.turn = null;
  }

  /** Ask now, and again until `stop`. */
  start() {
    this.stop();
    this.turn = Symbol("turn");
    this.#look(this.turn);
  }

  stop() {
    clearTimeout(this.timer);
    this.turn = null;
  }

  async #look(turn) {
    const begin = performance.now();
    let answer = null;
    let again = true;
    try {
      answer = await ask(this.path, {}, PATIENCE);
    } catch (error) {
      again = error.status !== 404;
    }
    if (this.turn !== turn) return;
    this.onAnswer(answer);
    const pause = Math.max(this.every, (performance.now() - begin) / SHARE);
    if (again) this.timer = setTimeout(() => this.#look(turn), pause);
  }
}
