// A metric of a run: buckets with their first, last, smallest and largest value, and the mean.
// Where each bucket has one value, the four are the same array.

import { sums, usualDistance } from "./smooth.js";

const MOST_MARKS = 500;
const PLACES = ["first", "last", "low", "high"];

export class Curve {
  // entry: what the page says of it. arrays: as curves.py lays them out. clock: steps, ms, epochs.
  constructor(entry, arrays, clock) {
    const [steps, first, lastOff, last, lowOff, low, highOff, high, count, mean] = arrays;
    this.entry = entry;
    this.clock = clock;
    const add = (offsets) => offsets.map((offset, i) => steps[i] + offset);
    const parts = entry.single
      ? { steps: { first: steps, last: steps, low: steps, high: steps }, values: { first, last: first, low: first, high: first } }
      : {
          steps: { first: steps, last: add(lastOff), low: add(lowOff), high: add(highOff) },
          values: { first, last, low, high },
        };
    this.begun = { ...parts, count: count ?? null, mean: mean ?? first }; // what was fetched
    this.reach = steps.length ? parts.steps.last[steps.length - 1] : -Infinity;
    this.latest = this.reach; // the step of the last value
    this.tail = new Map(); // step -> its values that came later
    this.read = { ...entry.reached }; // process -> number of the line behind the last that is in it
    this.version = 0;
    this.stale = false; // whether a later start has taken over some of it
    this.lay();
  }

  // Takes in values that were recorded later, by processes that need not be in step. numbers: those
  // of their lines; of: [process, how many values are its], one after another.
  append(steps, values, numbers, of) {
    const { entry } = this;
    const before = { ...this.read };
    let i = 0;
    for (const [process, count] of of) {
      for (const end = i + count; i < end; i++) {
        if (numbers[i] < (before[process] ?? 0)) continue; // it is here
        this.read[process] = Math.max(this.read[process] ?? 0, numbers[i] + 1);
        if (steps[i] <= this.reach && isLater(process)) this.stale = true;
        this.add(steps[i], values[i]);
      }
    }
    entry.marks.sort((a, b) => a[0] - b[0]);
    this.lay();
    this.views.clear();
    this.apart = entry.distance = undefined; // as its buckets are now
    this.version++;
  }

  add(step, value) {
    const { entry, tail } = this;
    if (!Number.isFinite(value)) {
      entry.bad++;
      if (entry.marks.length === MOST_MARKS) entry.marks.pop(); // the last one tells how far they go
      entry.marks.push([step, String(value)]);
      return;
    }
    if (step >= this.latest) [this.latest, entry.last] = [step, value];
    if (step <= this.reach) this.fold(step, value);
    else if (tail.has(step)) join(tail.get(step), value);
    else tail.set(step, { first: value, last: value, low: value, high: value, count: 1, mean: value });
  }

  // Puts a value of an earlier step where it belongs: into its bucket, or between two.
  fold(step, value) {
    const { begun, entry } = this;
    const { steps, values } = begun;
    if (entry.single) {
      entry.single = false;
      begun.count = new Float64Array(begun.mean.length).fill(1);
    }
    const at = lowerBound(steps.last, step);
    const isNew = steps.first[at] > step;
    const change = (array, changed) => {
      const found = Array.from(array);
      found.splice(at, isNew ? 0 : 1, changed);
      return Float64Array.from(found);
    };
    const one = { count: isNew ? 1 : begun.count[at], mean: isNew ? value : begun.mean[at] };
    const own = (place) => (isNew ? { step, value } : { step: steps[place][at], value: values[place][at] });
    const places = Object.fromEntries(PLACES.map((place) => [place, own(place)]));
    if (!isNew) {
      one.mean += (value - one.mean) / ++one.count;
      if (step < places.first.step) places.first = { step, value };
      if (step >= places.last.step) places.last = { step, value };
      if (value < places.low.value) places.low = { step, value };
      if (value > places.high.value) places.high = { step, value };
    }
    for (const place of PLACES) {
      steps[place] = change(steps[place], places[place].step);
      values[place] = change(values[place], places[place].value);
    }
    begun.count = change(begun.count, one.count);
    begun.mean = change(begun.mean, one.mean);
  }

  // Whether it was fetched before a process had recorded what is below a number.
  behind(reached) {
    return Object.entries(reached).some(([process, number]) => number > (this.entry.reached[process] ?? 0));
  }

  get appended() {
    return this.tail.size;
  }

  // What was fetched, and what came later.
  lay() {
    const { begun, entry, tail } = this;
    this.views ??= new Map();
    this.means = new Map();
    const steps = Float64Array.from(tail.keys()).sort();
    const later = Array.from(steps, (step) => tail.get(step));
    this.single = entry.single && later.every((one) => one.count === 1);
    const seen = new Map();
    const extended = (array, more, key) => {
      if (!later.length) return array;
      if (!seen.has(array)) seen.set(array, new Map());
      const known = seen.get(array);
      const shared = this.single ? "" : key;
      if (!known.has(shared)) known.set(shared, joined(array, more()));
      return known.get(shared);
    };
    const values = (key) => () => later.map((one) => one[key]);
    this.steps = Object.fromEntries(PLACES.map((place) => [place, extended(begun.steps[place], () => steps, "")]));
    this.values = Object.fromEntries(
      PLACES.map((place) => [place, extended(begun.values[place], values(place), place)]),
    );
    this.mean = extended(begun.mean, values("mean"), "mean");
    const counts = begun.count ?? (this.single ? null : new Float64Array(begun.mean.length).fill(1));
    this.count = counts && joined(counts, values("count")()); // null: one each
    this.length = this.mean.length;
  }

  // How many steps its values are apart; 0 where there are none to tell.
  get distance() {
    this.apart ??= this.entry.distance ?? usualDistance(this);
    return this.apart;
  }

  // The sums of its smoothing, by bucket.
  smooth(weight, unit) {
    const key = `${weight}/${unit}`;
    if (!this.means.has(key)) this.means.set(key, sums(this, weight, unit));
    return this.means.get(key);
  }

  // Milliseconds since 1970 at a step.
  timeAt(step) {
    return interpolate(this.clock[0], this.clock[1], [step])[0];
  }

  // The curve over an axis: step, time, relative, epoch, or another curve. null: it has no such x.
  over(axis, origin, other) {
    const key = other ? `${axis}/${other.version}` : axis;
    if (!this.views.has(key)) this.views.set(key, this.view(axis, origin, other));
    return this.views.get(key);
  }

  view(axis, origin, other) {
    let map = null; // step -> x
    if (axis === "time") map = (steps) => scaled(interpolate(this.clock[0], this.clock[1], steps), 0);
    else if (axis === "relative")
      map = (steps) => scaled(interpolate(this.clock[0], this.clock[1], steps), origin);
    else if (axis === "epoch") {
      if (!this.clock[2]) return null;
      const [knots, epochs] = known(this.clock[0], this.clock[2]);
      map = (steps) => interpolate(knots, epochs, steps, true);
    } else if (axis !== "step") {
      if (!other || !other.length) return null;
      map = (steps) => interpolate(other.steps.first, other.mean, steps, true);
    }
    const seen = new Map();
    const x = {};
    for (const place of PLACES) {
      const steps = this.steps[place];
      if (!seen.has(steps)) seen.set(steps, map ? map(steps) : steps);
      x[place] = seen.get(steps);
    }
    const { values: y, steps, count, mean } = this;
    return inOrder({ curve: this, x, y, steps, count, mean, map, order: null });
  }
}

// Processes are called label@start.
function isLater(process) {
  return !process.endsWith("@0");
}

function join(one, value) {
  one.last = value;
  one.low = Math.min(one.low, value);
  one.high = Math.max(one.high, value);
  one.count++;
  one.mean += (value - one.mean) / one.count;
}

// The knots that have a value.
function known(knots, values) {
  if (!values.some((value) => value !== value)) return [knots, values];
  const has = (_, i) => values[i] === values[i];
  return [knots.filter(has), values.filter(has)];
}

function joined(array, more) {
  const found = new Float64Array(array.length + more.length);
  found.set(array);
  found.set(more, array.length);
  return found;
}

function scaled(times, origin) {
  return times.map((time) => (time - origin) / 1000);
}

// Linear between knots; beyond them the nearest, or NaN.
export function interpolate(knots, values, xs, within = false) {
  const found = new Float64Array(xs.length);
  const end = knots.length - 1;
  let at = 0;
  for (let i = 0; i < xs.length; i++) {
    const x = xs[i];
    if (at > 0 && knots[at] > x) at = 0;
    while (at < end && knots[at + 1] <= x) at++;
    if (within && (x < knots[0] || x > knots[end])) found[i] = NaN;
    else if (x <= knots[0]) found[i] = values[0];
    else if (at === end) found[i] = values[end];
    else {
      const share = (x - knots[at]) / (knots[at + 1] - knots[at]);
      found[i] = values[at] + share * (values[at + 1] - values[at]);
    }
  }
  return found;
}

// By ascending x, without what has none. Times go back where a run did.
function inOrder(view) {
  const { first } = view.x;
  let sound = true;
  for (let i = 0; i < first.length && sound; i++) sound = i ? first[i] >= first[i - 1] : first[0] === first[0];
  if (sound) return view;
  const order = Array.from(first.keys()).filter((i) => first[i] === first[i]);
  order.sort((a, b) => first[a] - first[b]);
  const seen = new Map();
  const pick = (array) => {
    if (!array) return array;
    if (!seen.has(array)) seen.set(array, Float64Array.from(order, (i) => array[i]));
    return seen.get(array);
  };
  const each = (places) => Object.fromEntries(PLACES.map((place) => [place, pick(places[place])]));
  const parts = { x: each(view.x), y: each(view.y), steps: each(view.steps) };
  return { ...view, ...parts, count: pick(view.count), mean: pick(view.mean), order };
}

// The first index whose x is not below a value.
export function lowerBound(xs, value) {
  let low = 0;
  let high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The buckets of a window, with one more at each side so that lines reach the edge: [from, to).
export function within(view, first, last) {
  const from = Math.max(0, lowerBound(view.x.first, first) - 1);
  const to = Math.min(view.mean.length, lowerBound(view.x.first, last) + 1);
  return [from, to];
}

// The smallest and the largest value in a window; without outliers, of the middle 98 %.
export function rangeOf(views, first, last, { outliers, log }) {
  let low = Infinity;
  let high = -Infinity;
  const sample = [];
  for (const view of views) {
    let [from, to] = within(view, first, last);
    if (from < to && view.x.last[from] < first) from++;
    if (from < to && view.x.first[to - 1] > last) to--;
    const stride = Math.max(1, Math.floor((to - from) / 4000));
    for (let i = from; i < to; i++) {
      const [least, most] = [view.y.low[i], view.y.high[i]];
      if (!log || least > 0) low = Math.min(low, least);
      else if (most > 0) low = Math.min(low, most);
      if (!log || most > 0) high = Math.max(high, most);
      if (!outliers && i % stride === 0) sample.push(...(log ? [least, most].filter((v) => v > 0) : [least, most]));
    }
  }
  if (!outliers && sample.length > 20) {
    sample.sort((a, b) => a - b);
    low = sample[Math.floor(sample.length * 0.01)];
    high = sample[Math.ceil(sample.length * 0.99) - 1];
  }
  return low <= high ? [low, high] : null;
}
