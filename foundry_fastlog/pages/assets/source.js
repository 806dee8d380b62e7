// Where curves come from: here out of the page itself, by name, each decoded when it is first shown.

import { Curve } from "./curve.js";
import { decode } from "./decode.js";

export class EmbeddedSource {
  constructor() {
    this.blobs = new Map();
    this.curves = new Map();
  }

  load(run, name) {
    const entry = run.curves.get(name);
    const key = entry.blob;
    if (!this.curves.has(key)) this.curves.set(key, this.read(entry));
    return this.curves.get(key);
  }

  async read(entry) {
    const [arrays, clock] = await Promise.all([this.blob(entry.blob), this.blob(entry.clock)]);
    return new Curve(entry, arrays, clock);
  }

  blob(number) {
    if (!this.blobs.has(number)) this.blobs.set(number, this.find(number));
    return this.blobs.get(number);
  }

  // The arrays come last in the page: the first screen does not wait for them.
  async find(number) {
    const id = `b${number}`;
    if (!document.getElementById(id) && document.readyState === "loading")
      await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
    return decode(document.getElementById(id).textContent);
  }
}
