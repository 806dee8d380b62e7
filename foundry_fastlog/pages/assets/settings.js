// All that can be set on a page. It is in the URL's fragment, so that a link shows what its sender saw.

const DEFAULTS = {
  tab: "charts",
  x: "step",
  logx: "",
  logy: "",
  smooth: "0",
  outliers: "1",
  marks: "1",
  zoom: "",
  q: "",
  run: "",
  hide: "", // runs of a report
  show: "", // runs of the live page
  theme: "",
  side: "1",
};

export class Settings {
  // What the page's maker chose, if anything, is how it looks without a fragment.
  constructor(given = {}) {
    this.defaults = { ...DEFAULTS, ...given };
    this.values = { ...this.defaults };
    this.listeners = [];
    this.read();
    window.addEventListener("hashchange", () => {
      const before = { ...this.values };
      this.read();
      const changed = Object.keys(before).filter((key) => before[key] !== this.values[key]);
      if (changed.length) this.tell(changed);
    });
  }

  read() {
    const found = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(DEFAULTS)) this.values[key] = found.get(key) ?? this.defaults[key];
  }

  get(key) {
    return this.values[key];
  }

  on(key) {
    return this.values[key] === "1";
  }

  // Settings are texts; what is as it was tells nobody.
  set(changes) {
    const changed = Object.keys(changes).filter((key) => this.values[key] !== String(changes[key]));
    if (!changed.length) return;
    for (const key of changed) this.values[key] = String(changes[key]);
    const said = Object.entries(this.values).filter(([key, value]) => value !== this.defaults[key]);
    const hash = new URLSearchParams(said).toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    this.tell(changed);
  }

  listen(keys, act) {
    this.listeners.push([new Set(keys), act]);
  }

  tell(changed) {
    for (const [keys, act] of this.listeners) {
      if (changed.some((key) => keys.has(key))) act();
    }
  }

  // The window of x that all charts show, or null for all of it.
  get window() {
    const [first, last] = this.get("zoom").split(":").map(Number);
    return Number.isFinite(first) && last > first ? [first, last] : null;
  }
}
