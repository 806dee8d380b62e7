// The page: its runs, what is chosen, and the parts around the charts. The report and the live page
// differ in where their runs and curves come from.

import { AboutTab } from "./about.js";
import { ConfigTab } from "./config.js";
import { clear, h } from "./dom.js";
import { count } from "./format.js";
import { Grid } from "./grid.js";
import { Hover } from "./hover.js";
import { helpBox, listenToKeys } from "./keys.js";
import { MessagesTab } from "./messages.js";
import { RanksTab } from "./ranks.js";
import { RunsPanel } from "./runs.js";
import { Settings } from "./settings.js";
import { TABS, tabList, toolStrip, topBar } from "./toolbar.js";
import { TimingsTab } from "./timings.js";
import { ValuesTab } from "./values.js";

export const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3]];

export class Page {
  // data: {title, runs, colours, made}; source: loads curves.
  constructor(data, source) {
    this.title = data.title;
    this.data = data;
    this.source = source;
    this.settings = new Settings(data.settings);
    this.runs = data.runs.map((run) => this.prepare(run));
    this.hide();
    this.hover = new Hover();
    this.help = helpBox();
    this.grid = new Grid(this);
    this.panel = new RunsPanel(this);
    this.tabs = {
      charts: this.grid,
      values: new ValuesTab(this),
      timings: new TimingsTab(this),
      messages: new MessagesTab(this),
      config: new ConfigTab(this),
      about: new AboutTab(this),
      ranks: new RanksTab(this),
    };
  }

  // How many charts wait for their curves; in the page, for who waits for all of them.
  busy(change) {
    this.loading = (this.loading ?? 0) + change;
    document.documentElement.dataset.busy = String(this.loading);
    if (!this.loading && !performance.getEntriesByName("ready").length) performance.mark("ready");
  }

  prepare(run) {
    const [colour, dash] = run.style;
    return {
      ...run,
      colour: this.data.colours[colour],
      dash: DASHES[dash % DASHES.length],
      curves: new Map(run.curves.map((entry) => [entry.name, entry])),
      origin: Date.parse(run.first) || 0,
    };
  }

  start(root) {
    const { settings } = this;
    root.page = this; // for the console, and for tests
    this.showTheme();
    this.panelBox = h("main", { id: "panel", role: "tabpanel" });
    this.tools = toolStrip(this);
    const content = h("div.content", {}, h("div.strip", {}, tabList(this), this.tools), this.panelBox, this.footer());
    this.frame = h("div.frame", {}, this.panel.element, content);
    clear(root, topBar(this), this.frame, this.help);
    settings.listen(["tab"], () => this.show());
    settings.listen(["q", "run", "hide"], () => {
      if (settings.get("tab") !== "charts") this.show();
    });
    settings.listen(["run"], () => this.grid.repaint());
    settings.listen(["side"], () => this.showSide());
    settings.listen(["theme"], () => this.showTheme());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.showTheme());
    listenToKeys(this, TABS);
    this.showSide();
    this.show();
    // Charts are drawn once the grid has been told which are in view; elsewhere all is there.
    if (this.panelBox.querySelector(".chart") === null) this.busy(0);
  }

  show() {
    const tab = this.tabs[this.settings.get("tab")] ?? this.grid;
    this.hover.hide();
    this.tools.hidden = tab !== this.grid;
    if (!this.chosen) return clear(this.panelBox, h("p.empty", {}, "There are no runs here yet: record one with Recorder(\"runs/exp0\")."));
    if (this.panelBox.firstChild !== tab.element) clear(this.panelBox, tab.element);
    tab.show();
  }

  showSide() {
    this.frame.classList.toggle("alone", !this.settings.on("side"));
  }

  // The run that j, k or a click has chosen; null where none was.
  get focus() {
    return this.runs.find((run) => run.name === this.settings.get("run")) ?? null;
  }

  get chosen() {
    return this.focus ?? this.runs.find((run) => !run.hidden) ?? this.runs[0];
  }

  choose(run, kept = false) {
    this.settings.set({ run: run === this.focus && !kept ? "" : run.name });
  }

  toggle(run) {
    run.hidden = !run.hidden;
    const hidden = this.runs.filter((one) => one.hidden).map((one) => encodeURIComponent(one.name));
    this.settings.set({ hide: hidden.join(",") });
  }

  hide() {
    const hidden = new Set(this.settings.get("hide").split(",").map(decoded));
    for (const run of this.runs) run.hidden = hidden.has(run.name);
  }

  // All charts' names, with their kind, of the runs that are shown, in order of appearance.
  names() {
    const found = new Map();
    for (const run of this.runs) {
      if (run.hidden) continue;
      for (const [name, entry] of run.curves) found.set(name, entry.kind ?? "");
    }
    return [...found];
  }

  zoom(first, last) {
    if (last > first) this.settings.set({ zoom: `${Number(first.toPrecision(12))}:${Number(last.toPrecision(12))}` });
  }

  // Beside the title of a tab: how many errors there are.
  badge(tab) {
    if (tab !== "messages") return null;
    this.errorCount ??= h("span.badge");
    this.countErrors();
    return this.errorCount;
  }

  countErrors() {
    const errors = this.runs.reduce((all, run) => all + run.errors.groups.reduce((sum, one) => sum + one.count, 0), 0);
    this.errorCount.textContent = count(errors);
    this.errorCount.title = `${count(errors)} errors and events`;
    this.errorCount.hidden = !errors;
  }

  get isDark() {
    const asked = this.settings.get("theme");
    return asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  switchTheme() {
    this.settings.set({ theme: this.isDark ? "light" : "dark" });
    remember(this.settings.get("theme"));
  }

  showTheme() {
    const asked = this.settings.get("theme") || remembered();
    if (asked) this.settings.values.theme = asked;
    document.documentElement.dataset.theme = this.isDark ? "dark" : "light";
    this.grid.repaint();
  }

  footer() {
    return h("footer.quiet", {}, this.data.made);
  }
}

export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // not written by this page
  }
}

// A page from a file may have no storage.
function remember(theme) {
  try {
    localStorage.setItem("foundry-fastlog-theme", theme);
  } catch {
    return;
  }
}

function remembered() {
  try {
    return localStorage.getItem("foundry-fastlog-theme") ?? "";
  } catch {
    return "";
  }
}
