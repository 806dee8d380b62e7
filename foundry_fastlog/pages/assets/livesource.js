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

// A clock has steps and milliseconds, and epochs where all its steps have one.
function extend(clock, later) {
  const [steps] = later;
  const last = clock[0].length ? clock[0][clock[0].length - 1] : -Infinity;
  const order = Array.from(steps.keys()).filter((i) => steps[i] > last);
  order.sort((a, b) => steps[a] - steps[b]);
  if (!order.length) return;
  if (clock.length > later.length) clock.pop();
  for (let k = 0; k < clock.length; k++) clock[k] = Float64Array.of(...clock[k], ...order.map((i) => later[k][i]));
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
    return new Curve(entry, await decode(entry.arrays), shared ?? (await decode(entry.clock)));
  }

  // One for all curves of a run: where its steps were in time.
  clock(run, name) {
    if (!this.clocks.has(run.id)) {
      const found = ask("/api/clock", { run: run.id, name }).then(({ arrays }) => decode(arrays));
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

  drop(run, name) {
    this.curves.get(run.id)?.delete(name);
  }

  // Takes in what is new of a run; returns which curves have become long and must be loaded anew.
  async append(run, values, at) {
    const long = new Set();
    const known = this.curves.get(run.id);
    const clock = await this.clocks.get(run.id)?.catch(() => null);
    const told = new Set(); // places that the clock has
    for (const [name, [place, numbers]] of Object.entries(values)) {
      const curve = await known?.get(name)?.catch(() => null);
      const own = curve && curve.clock !== clock;
      if (own) extend(curve.clock, at[place]);
      else if (clock && !told.has(place)) {
        told.add(place);
        extend(clock, at[place]);
      }
      if (!curve) continue;
      curve.append(at[place][0], numbers.map(valueOf), at[place][1]);
      if (curve.appended > MOST_APPENDED && known.delete(name)) long.add(name);
    }
    return long;
  }
}
