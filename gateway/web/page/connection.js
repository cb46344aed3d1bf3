// The line to the gateway: status and history once, then a stream of samples, for as long as the
// page is open. When the line breaks it is tried again, slower each time; what was missed comes
// from the history. A hidden page lets go of it after a minute.

const SILENCE = 8_000; // without a sample: as good as broken; longer where samples come less often
const EVENTS = 200;
const SLOWEST = 10_000;
const HIDDEN = 60_000;

/** JSON from the API. Throws an Error with `status` (0: no answer) and `problems`. */
export const ask = async (path, parameters = {}, patience = 10_000) => {
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { signal: AbortSignal.timeout(patience) });
  } catch {
    throw Object.assign(new Error("the gateway does not answer"), { status: 0, problems: [] });
  }
  const text = await response.text();
  let body = {};
  try {
    const lines = response.headers.get("content-type")?.startsWith("application/x-ndjson");
    body = lines ? text.split("\n").filter(Boolean).map((line) => JSON.parse(line)) : JSON.parse(text);
  } catch {
    // an answer that is not JSON is known by its status
  }
  if (response.ok) return body;
  const problems = body.problems ?? [`HTTP status ${response.status}`];
  throw Object.assign(new Error(problems.join("; ")), { status: response.status, problems });
};

export class Connection {
  /**
   * `onStart({status, history})` when a line is up, `onSample(sample)`, `onEvents(events)` with
   * some that may be known, `onState(state, error)` with live, connecting, lost or resting,
   * `onRefused(problems)` when the query for flows is rejected (null: they are not any more).
   */
  constructor(listeners) {
    Object.assign(this, listeners);
    this.flows = {};
    this.refused = false; // what was asked for last; all flows are shown instead
    this.tries = 0;
    this.source = null;
    this.timers = {};
    this.stopped = false;
    document.addEventListener("visibilitychange", () => this.#visibility());
    addEventListener("pagehide", () => this.#stop());
    addEventListener("pageshow", (event) => event.persisted && this.start());
  }

  /** Connect, or connect again at once. */
  async start() {
    this.#stop();
    this.stopped = false;
    const attempt = Symbol("attempt");
    this.attempt = attempt;
    this.onState(this.tries === 0 ? "connecting" : "lost");
    try {
      const [status, history] = await Promise.all([ask("/v1/status"), ask("/v1/history", { seconds: 900 })]);
      if (this.attempt !== attempt) return;
      this.onStart({ status, history });
      this.#listen();
    } catch (error) {
      if (this.attempt !== attempt) return;
      this.#again(error);
    }
  }

  /** Have the samples' flows filtered, sorted and counted so: the API's parameters. */
  setFlows(parameters) {
    this.flows = parameters;
    this.refused = false;
    if (this.source !== null) this.#listen();
  }

  #listen() {
    this.source?.close();
    const parameters = new URLSearchParams({ format: "sse", ...this.flows });
    const source = new EventSource(`/v1/live?${parameters}`);
    this.source = source;
    let first = true;
    source.addEventListener("sample", (event) => {
      if (this.source !== source) return;
      const sample = JSON.parse(event.data);
      this.tries = 0;
      this.#watch(sample.sampleSeconds);
      // a stream has the events since its own beginning: some may be from before
      if (first || sample.eventsOmitted > 0) this.#catchUp();
      first = false;
      this.onState("live");
      if (!this.refused) this.onRefused(null);
      this.onSample(sample);
    });
    source.addEventListener("error", () => {
      if (this.source === source) this.#failed(parameters);
    });
    this.#watch();
  }

  #watch(seconds) {
    clearTimeout(this.timers.silence);
    this.timers.silence = setTimeout(() => this.#again(), Math.max(SILENCE, (seconds ?? 0) * 5000));
  }

  async #catchUp() {
    try {
      this.onEvents(await ask("/v1/events", { limit: EVENTS }));
    } catch {
      // the next stream's beginning is another chance
    }
  }

  /** An event source gives no reason: rejected parameters are asked for once more. */
  async #failed(parameters) {
    this.source.close();
    this.source = null;
    clearTimeout(this.timers.silence);
    const attempt = this.attempt;
    const control = new AbortController();
    let problems = [];
    let status = 0;
    try {
      const response = await fetch(`/v1/live?${parameters}`, { signal: control.signal });
      status = response.status;
      if (!response.ok) ({ problems } = await response.json());
    } catch {
      // broken, not rejected
    }
    control.abort();
    if (this.attempt !== attempt || this.source !== null) return;
    if (status !== 400) {
      this.#again(Object.assign(new Error(problems.join("; ")), { status, problems }));
    } else {
      this.onRefused(problems);
      this.refused = true;
      this.flows = {};
      this.#listen();
    }
  }

  #again(error) {
    this.#stop();
    this.stopped = false;
    this.tries += 1;
    this.onState("lost", error);
    this.timers.again = setTimeout(() => this.start(), Math.min(500 * 2 ** this.tries, SLOWEST));
  }

  #stop() {
    this.stopped = true;
    this.attempt = null;
    this.source?.close();
    this.source = null;
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
  }

  #rest() {
    this.#stop();
    this.onState("resting");
  }

  #visibility() {
    clearTimeout(this.timers.hidden);
    if (document.hidden) this.timers.hidden = setTimeout(() => this.#rest(), HIDDEN);
    else if (this.stopped) this.start();
  }
}
