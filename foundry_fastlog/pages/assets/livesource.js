// Curves from the server: each is fetched once, follows by what is new, and in finer buckets where
// a chart is zoomed into.

import { Curve } from "./curve.js";
import { decode } from "./decode.js";

const POINTS = 2000;
const MOST_APPENDED = 3000; // values, after which a curve is fetched anew in buckets

export async function ask(path, parameters, body) {
  const query = new URLSearchParams(parameters).toString();
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const response = await fetch(query ? `${path}?${query}` : path, options);
  const found = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Error(found.error || response.statusText);
  return found;
}

// JSON has no NaN: these are texts.
function valueOf(value) {
  return typeof value === "number" ? value : { inf: Infinity, "-inf": -Infinity }[value] ?? NaN;
}

// A clock has steps and milliseconds, and epochs where any of its steps has one: NaN for others.
function extend(clock, later) {
  const [steps] = later;
  const last = clock[0].length ? clock[0][clock[0].length - 1] : -Infinity;
  const order = Array.from(steps.keys()).filter((i) => steps[i] > last);
  order.sort((a, b) => steps[a] - steps[b]);
  if (!order.length) return;
  if (later.length > clock.length) clock.push(new Float64Array(clock[0].length).fill(NaN));
  for (let k = 0; k < clock.length; k++)
    clock[k] = Float64Array.of(...clock[k], ...order.map((i) => later[k]?.[i] ?? NaN));
}

function covers(clock, steps) {
  return !steps.length || (clock[0][0] <= steps[0] && steps.at(-1) <= clock[0].at(-1));
}

function kindOf(run, name) {
  return run.curves.get(name)?.kind ?? "";
}

export class LiveSource {
  constructor() {
    this.curves = new Map(); // run id -> name -> promise of a curve
    this.clocks = new Map();
  }

  load(run, name) {
    if (!this.curves.has(run.id)) this.curves.set(run.id, new Map());
    const known = this.curves.get(run.id);
    if (!known.has(name)) {
      const found = this.read(run, name, { points: POINTS });
      found.catch(() => known.delete(name)); // ask again the next time
      known.set(name, found);
    }
    return known.get(name);
  }

  async read(run, name, window) {
    const { kind = "", of = name } = run.curves.get(name) ?? {};
    const [entry, shared] = await Promise.all([
      ask("/api/curve", { run: run.id, name: of, kind, ...window }),
      kind ? null : this.clock(run, of),
    ]);
    const arrays = await decode(entry.arrays);
    if (kind) return new Curve(entry, arrays, await decode(entry.clock));
    return new Curve(entry, arrays, covers(shared, arrays[0]) ? shared : await this.ownClock(run, of));
  }

  // Epochs of a curve, where the clock that it shares has none.
  async seekEpochs(run, name, curve) {
    const { kind, of = name } = run.curves.get(name) ?? {};
    if (kind || curve.clock[2] || curve.sought) return;
    curve.sought = true;
    curve.clock = await this.ownClock(run, of);
    curve.views.clear();
  }

  async ownClock(run, name) {
    return decode((await ask("/api/clock", { run: run.id, name })).arrays);
  }

  // One for all curves of a run: where its steps were in time.
  clock(run, name) {
    if (!this.clocks.has(run.id)) {
      const found = this.ownClock(run, name);
      found.catch(() => this.clocks.delete(run.id));
      this.clocks.set(run.id, found);
    }
    return this.clocks.get(run.id);
  }

  // A curve of some steps alone, in as many buckets as there are pixels.
  refine(run, name, first, last, points) {
    return this.read(run, name, { points, first, last });
  }

  forget(id) {
    this.curves.delete(id);
    this.clocks.delete(id);
  }

  // Drops a curve that lacks some of what was recorded before it was followed; says whether it did.
  async dropIfBehind(run, name, reached) {
    const known = this.curves.get(run.id);
    const found = known?.get(name);
    const curve = await found?.catch(() => null);
    const isBehind = Boolean(curve?.behind(reached) && known.get(name) === found);
    return isBehind && known.delete(name);
  }

  // Takes in what is new of a run; returns which curves must be loaded anew: they have become long,
  // or a later start has taken over what an earlier one had recorded.
  async append(run, values, at) {
    const long = new Set();
    const known = this.curves.get(run.id);
    const clock = await this.clocks.get(run.id)?.catch(() => null);
    const told = new Set(); // places that the clock has
    for (const [name, [place, found]] of Object.entries(values)) {
      const curve = await known?.get(name)?.catch(() => null);
      const own = curve && curve.clock !== clock;
      const { clock: later, numbers, of } = at[place];
      if (own) extend(curve.clock, later);
      else if (clock && !told.has(place)) {
        told.add(place);
        extend(clock, later);
      }
      if (!curve) continue;
      curve.append(later[0], found.map(valueOf), numbers, of);
      const isStale = curve.stale && !kindOf(run, name);
      if (isStale) this.clocks.delete(run.id);
      if ((isStale || curve.appended > MOST_APPENDED) && known.delete(name)) long.add(name);
    }
    return long;
  }
}
