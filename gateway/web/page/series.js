// What the plots show: values over the last quarter of an hour, first from the API's history, then
// from its samples. Times are Unix milliseconds of the gateway's clock, never of the browser's.

export const KEPT = 905_000;
const TURNED_BACK = 5_000; // the gateway's clock was set: what was before cannot be placed
const GATEWAY = ["packetsPerSecond", "bytesOutPerSecond", "bytesInPerSecond", "flows", "dropsPerSecond"];
const POOL = ["allocated", "used", "failed", "highWater"];

/** Columns of numbers over one column of times. A value that is not known is null. */
export class Track {
  constructor(names) {
    this.times = [];
    this.columns = Object.fromEntries(names.map((name) => [name, []]));
  }

  /** Add a row; one that is not newer than the last is left out. */
  add(time, values) {
    const last = this.times.at(-1);
    if (last !== undefined && time <= last) return;
    this.times.push(time);
    for (const [name, column] of Object.entries(this.columns)) column.push(values[name] ?? null);
    const old = this.times.findIndex((moment) => moment >= time - KEPT);
    if (old > 60) {
      this.times.splice(0, old);
      for (const column of Object.values(this.columns)) column.splice(0, old);
    }
  }

  last(name) {
    return this.columns[name].at(-1) ?? null;
  }

  /** The row at a time: the last one that is not later. -1: there is none. */
  at(time) {
    let low = 0;
    let high = this.times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle] <= time) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

/** A pool's key: a VM has one for each public IP, protocol, and method where that has changed. */
const poolKey = (pool) => [pool.vm, pool.publicIp, pool.protocol, pool.method].join("\u0000");

export class Series {
  constructor() {
    this.clear();
  }

  clear() {
    this.gateway = new Track(GATEWAY);
    this.pools = new Map();
    this.now = 0;
    this.step = 1000;
  }

  /** Begin with the API's history, in place of what there was. */
  load(history) {
    this.clear();
    const times = history.times.map(Date.parse);
    this.step = (history.stepSeconds || 1) * 1000;
    this.now = times.at(-1) ?? 0;
    times.forEach((time, index) => {
      this.gateway.add(time, Object.fromEntries(GATEWAY.map((name) => [name, history.gateway[name]?.[index]])));
    });
    for (const pool of history.ports ?? []) {
      const entry = this.#pool(poolKey(pool));
      times.forEach((time, index) => {
        if (pool.used[index] == null) return;
        note(entry, time, { allocated: pool.allocated[index], used: pool.used[index], failed: pool.failed[index] });
      });
    }
  }

  /** Go on with a sample. */
  add(sample) {
    const time = Date.parse(sample.time);
    if (time < this.now - TURNED_BACK) this.clear();
    this.now = time;
    this.gateway.add(time, sample.gateway);
    const present = new Set();
    for (const pool of sample.ports) {
      const key = poolKey(pool);
      present.add(key);
      const entry = this.#pool(key);
      entry.document = pool;
      note(entry, time, pool);
    }
    for (const [key, entry] of this.pools) {
      if (!present.has(key)) entry.document = null;
      if (entry.document === null && !(entry.track.times.at(-1) >= time - KEPT)) this.pools.delete(key);
    }
  }

  #pool(key) {
    let entry = this.pools.get(key);
    if (entry === undefined) {
      entry = { document: null, track: new Track(POOL), refusedAt: null };
      this.pools.set(key, entry);
    }
    return entry;
  }
}

const note = (entry, time, values) => {
  const before = entry.track.last("failed");
  entry.track.add(time, values);
  if (before !== null && values.failed > before) entry.refusedAt = time;
};

/** [from, to] of the times at which a count went up: flows were dropped in between. */
export const rises = (track, name) => {
  const column = track.columns[name];
  const found = [];
  for (let index = 1; index < column.length; index += 1) {
    if (column[index] > column[index - 1] && column[index - 1] !== null) {
      found.push([track.times[index - 1], track.times[index]]);
    }
  }
  return found;
};
