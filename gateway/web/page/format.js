// Numbers, sizes, rates and times as a reader wants them. Nothing here touches the page.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const scaled = (value, step, units) => {
  let power = 0;
  while (value >= step * 0.9995 && power < units.length - 1) {
    value /= step;
    power += 1;
  }
  const digits = power === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return [value.toFixed(digits), units[power]];
};

/** A whole number, its thousands apart; nothing known is a dash. */
export const count = (value) => (value == null ? "–" : grouped.format(value));

/** A share as a percentage, rounded as the diagnosis rounds: not to 100 before it is all of it. */
export const percent = (share) =>
  share > 0 && share < 0.01 ? "<1" : String(share >= 1 ? Math.round(share * 100) : Math.min(Math.round(share * 100), 99));

/** Events a second: small ones with a digit behind the point. */
export const perSecond = (value) =>
  value == null ? "–" : value > 0 && value < 9.95 ? value.toFixed(1) : grouped.format(value);

/** [number, unit] of a rate given in bytes a second. */
export const bitRate = (bytes) => scaled(bytes * 8, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);

export const bits = (bytes) => (bytes == null ? "–" : bytes === 0 ? "0" : bitRate(bytes).join(" "));

export const bytes = (value) => (value == null ? "–" : scaled(value, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]).join(" "));

/** A duration in seconds: "8 s", "4 min 05 s", "3 h 20 min". */
export const duration = (seconds) => {
  if (seconds == null) return "–";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600) % 24} h`;
};

/** The same for columns: "8s", "4m05s", "3h20m", as the command line has it. */
export const brief = (seconds) => duration(seconds).replace(/ (d|h|m|s)(in)? ?/g, "$1");

/** The time of day of a Unix time in milliseconds, in the reader's own zone. */
export const clock = (time, withSeconds = true) => {
  const date = new Date(time);
  const part = (value) => String(value).padStart(2, "0");
  const minutes = `${part(date.getHours())}:${part(date.getMinutes())}`;
  return withSeconds ? `${minutes}:${part(date.getSeconds())}` : minutes;
};

/** IP:PORT in the parts that belong together, or the IP alone where there is no port. */
export const endpointParts = (place) => {
  if (place == null) return ["–"];
  return place.port == null ? [place.ip] : [`${place.ip}:`, `${place.port}`];
};

/** The same as one text. */
export const endpoint = (place) => endpointParts(place).join("");

/** DefaultOutboundAccess → "default outbound access". */
export const words = (name) => {
  const apart = (name ?? "").replace(/([a-z])([A-Z])/g, "$1 $2").replace(/([A-Z]+)([A-Z][a-z])/g, "$1 $2");
  return apart.split(" ").map((word) => (/^[A-Z]{2,}$/.test(word) ? word : word.toLowerCase())).join(" ");
};

/** The same with a capital at its beginning. */
export const sentence = (name) => {
  const text = words(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
};

/** When an event was: the time of day, before that day the date. */
export const moment = (time, now) => {
  if (now - time < 72_000_000) return clock(time);
  return new Date(time).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
};
