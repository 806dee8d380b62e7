// Numbers, durations, sizes and times for people.

const SI = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

// Three to four digits: 0.01234, 2.5, 13.8k, 1.2e-05.
export function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e15) return value.toExponential(2).replace(/\.?0+e/, "e");
  if (size < 1e4) return Number.isInteger(value) ? String(value) : trim(value.toPrecision(4));
  const [scale, letter] = SI.find(([scale]) => size >= scale * 0.9999);
  return trim((value / scale).toPrecision(4)) + letter;
}

function trim(text) {
  return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
}

// All digits, as in the file.
export function full(value) {
  return typeof value === "number" && Number.isInteger(value) && Math.abs(value) < 1e15
    ? value.toLocaleString("en-US")
    : String(value);
}

export function count(value) {
  return value.toLocaleString("en-US");
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0) return "-" + duration(-seconds);
  if (seconds === 0) return "0 s";
  if (seconds < 1e-6) return `${trim((seconds * 1e9).toPrecision(3))} ns`;
  if (seconds < 1e-3) return `${trim((seconds * 1e6).toPrecision(3))} µs`;
  if (seconds < 1) return `${trim((seconds * 1e3).toPrecision(3))} ms`;
  if (seconds < 120) return `${trim(seconds.toPrecision(3))} s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 7200) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const hours = Math.floor(whole / 3600);
  if (hours < 48) return `${hours} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function size(bytes) {
  for (const [scale, letter] of SI) {
    if (bytes >= scale) return `${trim((bytes / scale).toPrecision(3))} ${letter}B`;
  }
  return `${bytes} B`;
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${trim((share * 100).toPrecision(3))} %`;
}

// A moment in UTC, from a line's timestamp or milliseconds.
export function moment(time, digits = 0) {
  if (!time) return "–";
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  const text = date.toISOString().replace("T", " ");
  return digits ? text.slice(0, 20 + digits) : text.slice(0, 19);
}

// What the name of a metric says of its unit.
export function unit(name) {
  if (/(^|[_./])per_s(ec)?$/i.test(name)) return "/s";
  const found = /[_./](ms|s|gb|mb|kb|bytes|percent|pct|w|c)$/i.exec(name);
  if (!found) return "";
  const units = { bytes: "B", percent: "%", pct: "%", gb: "GB", mb: "MB", kb: "kB", w: "W", c: "°C" };
  return units[found[1].toLowerCase()] ?? found[1].toLowerCase();
}

// A name as it is shown: one that is blank would be a gap.
export function named(name) {
  return name.trim() ? name : JSON.stringify(name);
}
