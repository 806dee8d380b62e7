// The axes of a chart: where their ticks are and how these are written.

import { token } from "./dom.js";
import { duration, short } from "./format.js";

const FONT = '12px system-ui, -apple-system, "Segoe UI", sans-serif';
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
// Steps between ticks that are round in seconds, minutes, hours or days.
const SECONDS = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE];
SECONDS.push(10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY);
SECONDS.push(2 * DAY, 5 * DAY, 10 * DAY, 30 * DAY, 100 * DAY);

// Those between numbers: uPlot's own, up to 1e32, and on to the largest.
const NUMBERS = [];
for (let exponent = -32; exponent < 308; exponent++)
  for (const part of exponent < 32 ? [1, 2, 2.5, 5] : [1, 2, 5]) NUMBERS.push(Number(`${part}e${exponent}`));

function axis(more) {
  return {
    stroke: () => token("quiet"),
    font: FONT,
    grid: { stroke: () => token("line"), width: 1 },
    ticks: { show: false },
    ...more,
  };
}

export function axesOf(x) {
  const across = axis({ size: 26, gap: 4, space: 70 });
  if (x === "relative") {
    across.incrs = SECONDS;
    across.values = (_, splits) => splits.map((at) => (at === null ? "" : duration(at)));
  } else if (x !== "time") across.values = written;
  const up = axis({ gap: 4, space: 34, size: widthOf, values: written, incrs: NUMBERS });
  return [across, up];
}

// As short as tells neighbours apart.
function written(_, splits) {
  const given = splits.filter((at) => at !== null);
  // What rounding has left of nothing is nothing.
  const apart = given.length > 1 ? Math.abs(given[1] - given[0]) : 0;
  const exact = (at) => (Math.abs(at) < apart * 1e-9 ? 0 : at);
  const known = given.map(exact);
  const texts = new Map(known.map((at) => [at, short(at)]));
  if (new Set(texts.values()).size < texts.size) {
    const digits = Math.min(17, Math.max(4, 2 + Math.ceil(Math.log10(Math.max(...known.map(Math.abs)) / apart))));
    for (const at of known) texts.set(at, String(Number(at.toPrecision(digits))));
  }
  return splits.map((at) => (at === null ? "" : texts.get(exact(at))));
}

function widthOf(chart, values, index, cycle) {
  if (cycle > 1) return chart.axes[index]._size;
  const longest = Math.max(0, ...(values ?? []).map((text) => text.length));
  return Math.max(34, Math.ceil(longest * 7 + 12));
}

export function scalesOf(x, logX, logY, rangeX, rangeY) {
  return {
    x: { time: x === "time", distr: logX ? 3 : 1, range: rangeX },
    y: { distr: logY ? 3 : 1, range: rangeY },
  };
}

const MOST = 1.7e308; // ticks and their distances must be finite

const WIDEST = [-MOST / 2, MOST / 2];

// A value where an axis can show it: on the edge, if the axis could be no wider.
export function reachable(value, [low, high]) {
  return high - low < MOST ? value : Math.max(low, Math.min(high, value));
}

// What is no distance for ticks: between neighbouring doubles there are none.
function least(low, high) {
  return Math.max(Math.abs(low), Math.abs(high)) * 1e-12;
}

// A range that is wide enough for ticks.
export function widened(low, high) {
  const room = least(low, high);
  return high - low < room ? [low - room, high + room] : [low, high];
}

// A range with room at both ends.
export function padded(range, log) {
  if (!range) return log ? [0.1, 10] : [0, 1];
  let [low, high] = range;
  if (log) {
    const room = high > low ? (high / low) ** 0.05 : 1.5;
    return [low / room, high * room];
  }
  const room = high - low > least(low, high) ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  [low, high] = [Math.max(low - room, -MOST), Math.min(high + room, MOST)];
  return high - low < MOST ? [low, high] : WIDEST;
}
