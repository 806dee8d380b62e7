// Paints curves on a canvas. What is denser than the pixels becomes, by column of pixels, a band from
// the smallest to the largest value and a line of means: no spike is lost at any zoom.

import { within } from "./curve.js";
import { smoothed } from "./smooth.js";

const BAND = 0.28;
const EDGE = 0.5;
const APART = 10; // pixels between lines of starts, checkpoints and errors
const RAW = 0.25; // of the raw curve behind a smooth one

// place: {x, y: value -> canvas pixels, left, width, top, bottom, ratio, log}. smooth: {weight, unit}.
export function paintCurve(context, view, style, place, smooth, window) {
  const [from, to] = within(view, ...window);
  if (from >= to) return;
  context.save();
  context.beginPath();
  context.rect(place.left, place.top - 2, place.width, place.bottom - place.top + 4);
  context.clip();
  context.strokeStyle = context.fillStyle = style.colour;
  context.lineWidth = style.width * place.ratio;
  context.lineJoin = "round";
  context.setLineDash(style.dash.map((length) => length * place.ratio));
  const alpha = style.faint ? 0.45 : 1;
  const isSmooth = smooth.weight > 0;
  const raw = isSmooth ? RAW * alpha : alpha;
  const dense = to - from > place.width / place.ratio;
  if (dense) paintColumns(context, view, from, to, place, raw, isSmooth);
  else paintPoints(context, view, from, to, place, raw);
  if (isSmooth) {
    context.globalAlpha = alpha;
    const y = yOf(place, smoothed(view, smooth.weight, smooth.unit));
    line(context, from, to, (i) => place.x(view.x.last[i]), y);
  }
  context.restore();
}

function yOf(place, values) {
  return (i) => (place.log && values[i] <= 0 ? NaN : place.y(values[i]));
}

// A line through points; it is broken where one has no place, or `broken` says so.
function line(context, from, to, x, y, broken, width) {
  const before = context.lineWidth;
  if (width) context.lineWidth = width;
  context.beginPath();
  let pen = false;
  for (let i = from; i < to; i++) {
    const [across, up] = [x(i), y(i)];
    if (up !== up) pen = false;
    else if (pen && !(broken && broken(i))) context.lineTo(across, up);
    else {
      context.moveTo(across, up);
      pen = true;
    }
  }
  context.stroke();
  context.lineWidth = before;
}

function paintColumns(context, view, from, to, place, alpha, quiet) {
  const columns = Math.ceil(place.width) + 3;
  const low = new Float64Array(columns).fill(Infinity);
  const high = new Float64Array(columns).fill(-Infinity);
  const sum = new Float64Array(columns);
  const weight = new Float64Array(columns);
  const note = (x, value) => {
    const column = Math.round(place.x(x) - place.left) + 1;
    if (column < 0 || column >= columns) return;
    low[column] = Math.min(low[column], value);
    high[column] = Math.max(high[column], value);
  };
  for (let i = from; i < to; i++) {
    note(view.x.low[i], view.y.low[i]);
    if (!view.curve.single) note(view.x.high[i], view.y.high[i]);
    const column = Math.round(place.x(view.x.first[i]) - place.left) + 1;
    if (column < 0 || column >= columns) continue;
    const count = view.count ? view.count[i] : 1;
    sum[column] += count * view.mean[i];
    weight[column] += count;
  }
  const bottom = (value) => (place.log && value <= 0 ? place.bottom : place.y(value));
  context.globalAlpha = quiet ? alpha : alpha * BAND;
  for (let column = 0; column < columns; column++) {
    if (low[column] > high[column] || (place.log && high[column] <= 0)) continue;
    const [top, end] = [place.y(high[column]), bottom(low[column])];
    context.fillRect(place.left + column - 1, top - 0.5, 1, Math.max(1, end - top + 1));
  }
  if (quiet) return;
  // The edges of the band are firmer, so that a spike of one step is seen.
  context.globalAlpha = alpha * EDGE;
  for (const edge of [high, low]) {
    const y = (column) => (low[column] > high[column] ? NaN : bottom(edge[column]));
    line(context, 0, columns, (column) => place.left + column - 0.5, y, null, place.ratio);
  }
  context.globalAlpha = alpha;
  context.beginPath();
  let pen = false;
  for (let column = 0; column < columns; column++) {
    const mean = sum[column] / weight[column];
    if (!weight[column] || (place.log && mean <= 0)) continue;
    if (pen) context.lineTo(place.left + column - 1, place.y(mean));
    else context.moveTo(place.left + column - 1, place.y(mean));
    pen = true;
  }
  context.stroke();
}

function paintPoints(context, view, from, to, place, alpha) {
  context.globalAlpha = alpha;
  if (view.curve.single) {
    const y = yOf(place, view.y.first);
    line(context, from, to, (i) => place.x(view.x.first[i]), y, breaks(view));
    if (to - from < place.width / place.ratio / 8) dots(context, from, to, (i) => place.x(view.x.first[i]), y, place);
    return;
  }
  const bottom = (value) => (place.log && value <= 0 ? place.bottom : place.y(value));
  context.globalAlpha = alpha * BAND;
  const isFine = !view.curve.entry.level && to - from > 1;
  if (isFine) paintBand(context, view, from, to, place, bottom);
  for (let i = isFine ? to : from; i < to; i++) {
    if (place.log && view.y.high[i] <= 0) continue;
    const [left, right] = [place.x(view.x.first[i]), place.x(view.x.last[i])];
    const [top, end] = [place.y(view.y.high[i]), bottom(view.y.low[i])];
    const width = Math.max(place.ratio, right - left);
    context.fillRect((left + right - width) / 2, top, width, Math.max(1, end - top));
  }
  context.globalAlpha = alpha;
  const middle = (i) => (place.x(view.x.first[i]) + place.x(view.x.last[i])) / 2;
  line(context, from, to, middle, yOf(place, view.mean));
}

// Of several values at each step, from step to step.
function paintBand(context, view, from, to, place, bottom) {
  for (let i = from + 1; i < to; i++) {
    const ends = [i - 1, i].filter((at) => !place.log || view.y.high[at] > 0);
    if (ends.length < 2) continue;
    context.beginPath();
    for (const at of ends) context.lineTo(place.x(view.x.first[at]), place.y(view.y.high[at]));
    for (const at of ends.reverse()) context.lineTo(place.x(view.x.first[at]), bottom(view.y.low[at]));
    context.fill();
  }
}

function dots(context, from, to, x, y, place) {
  const size = 1.8 * place.ratio;
  for (let i = from; i < to; i++) {
    const up = y(i);
    if (up !== up) continue;
    context.beginPath();
    context.arc(x(i), up, size, 0, 7);
    context.fill();
  }
}

// Whether a NaN lies before a point: the line has a gap there.
function breaks(view) {
  const marks = view.curve.entry.marks;
  if (!marks.length) return null;
  const steps = view.steps.first;
  let at = 0;
  return (i) => {
    while (at < marks.length && marks[at][0] <= steps[i - 1]) at++;
    return at < marks.length && marks[at][0] < steps[i];
  };
}

// NaN and infinite values, at the edge where they would be.
export function paintMarks(context, view, style, place) {
  context.save();
  context.fillStyle = style.colour;
  const size = 4 * place.ratio;
  for (const [step, kind] of view.curve.entry.marks) {
    const x = place.x(view.map ? view.map([step])[0] : step);
    if (!(x >= place.left && x <= place.left + place.width)) continue;
    const [edge, towards] = kind === "-inf" ? [place.bottom, -1] : [place.top, 1];
    context.beginPath();
    context.moveTo(x - size, edge);
    context.lineTo(x + size, edge);
    context.lineTo(x, edge + towards * size * 1.6);
    context.fill();
  }
  context.restore();
}

// Vertical lines with a word: starts, checkpoints, errors.
export function paintLines(context, lines, place, colour) {
  context.save();
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = place.ratio;
  context.font = `${10 * place.ratio}px system-ui, sans-serif`;
  context.setLineDash([3 * place.ratio, 3 * place.ratio]);
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  let free = -Infinity;
  const before = new Map(); // what a line is of -> where the last such is
  for (const [at, word] of lines) {
    const x = Math.round(place.x(at)) + 0.5;
    if (!(x >= place.left && x <= place.left + place.width)) continue;
    const kind = word.replace(/\d+$/, "");
    if (x < before.get(kind) + APART * place.ratio) continue; // behind hundreds no curve is seen
    before.set(kind, x);
    context.globalAlpha = 0.6;
    context.beginPath();
    context.moveTo(x, place.top);
    context.lineTo(x, place.bottom);
    context.stroke();
    const width = context.measureText(word).width;
    if (x < free || x + width > place.left + place.width) continue;
    context.globalAlpha = 1;
    context.fillText(word, x + 3 * place.ratio, place.bottom - 4 * place.ratio);
    free = x + width + 8 * place.ratio;
  }
  context.restore();
}
