// One chart: the curves of a metric, of all runs that are shown, painted on a uPlot.

import { axesOf, padded, reachable, scalesOf, widened } from "./axes.js";
import { rangeOf, within } from "./curve.js";
import { h, token } from "./dom.js";
import { count, named, short, unit } from "./format.js";
import { gestures } from "./gestures.js";
import { markAt, nearest } from "./hover.js";
import { paintCurve, paintLines, paintMarks } from "./paint.js";
import { unitOf } from "./smooth.js";

export const HEIGHT = 224; // of the plot; with its title a chart has 260 pixels

const isMove = (type) => type === "mousemove" || type === "mouseleave";

export class Chart {
  // page: what all charts share: settings, source, hover, runs, and who follows the pointer.
  // element: its place in the page.
  constructor(page, name, element) {
    this.page = page;
    this.name = name;
    this.shown = []; // {run, view} of what is painted
    this.u = null;
    this.title = h("h3", { title: name }, named(name));
    this.note = h("span.note");
    this.value = h("span.value");
    const wide = h(
      "button.icon",
      { type: "button", title: "Larger", "aria-label": `Larger chart of ${name}`, onclick: () => this.widen() },
      "⤢",
    );
    this.plot = h("div.plot");
    this.summary = h("p.unseen");
    this.element = element;
    element.setAttribute("aria-label", `Chart of ${name}`);
    element.append(h("figcaption", {}, this.title, this.note, wide, this.value), this.plot, this.summary);
  }

  get height() {
    return this.element.classList.contains("wide") ? 2 * HEIGHT : HEIGHT;
  }

  widen() {
    this.element.classList.toggle("wide");
    this.resize();
  }

  // Loads the curves and paints them; to be called again when settings or data change.
  async mount() {
    this.mounted = true;
    this.page.busy(1);
    try {
      await this.load();
    } finally {
      this.page.busy(-1);
    }
  }

  async load() {
    const axis = this.page.settings.get("x");
    const wanted = this.page.runs.filter((run) => !run.hidden && run.curves.has(this.name));
    const { source } = this.page;
    this.failed = "";
    const loaded = await Promise.all(
      wanted.map(async (run) => {
        try {
          const [curve, other] = await Promise.all([
            source.load(run, this.name),
            run.curves.has(axis) ? source.load(run, axis) : null,
          ]);
          if (axis === "epoch") await source.seekEpochs?.(run, this.name, curve);
          return { run, other, view: curve.over(axis, run.origin, other) };
        } catch (error) {
          this.failed = `${run.name}: ${error.message}`; // the other runs are shown
          return null;
        }
      }),
    );
    if (!this.mounted) return;
    const found = loaded.filter((one) => one);
    this.without = found.filter(({ view }) => !view).length;
    this.shown = found.filter(({ view }) => view && view.mean.length + view.curve.entry.bad);
    this.build();
    this.describe();
    this.refine();
    if (!performance.getEntriesByName("drawn").length) performance.mark("drawn");
  }

  // After values were appended to its curves.
  update() {
    if (!this.u) return;
    const axis = this.page.settings.get("x");
    for (const one of this.shown) one.view = one.view.curve.over(axis, one.run.origin, one.other) ?? one.view;
    this.rescale();
  }

  // Where the source has finer buckets than the page, those of the window are fetched and shown.
  refine() {
    clearTimeout(this.refining);
    const { source, settings } = this.page;
    for (const one of this.shown) one.fine = null;
    if (!source.refine || !settings.window) return;
    this.refining = setTimeout(async () => {
      const window = this.rangeX;
      const points = Math.ceil(this.plot.clientWidth);
      for (const one of this.shown) {
        const [from, to] = within(one.view, ...window);
        if (one.view.curve.single || from >= to) continue;
        // The same for all charts, so that the server reads it once.
        const round = 2 ** Math.max(0, Math.floor(Math.log2((one.view.steps.last[to - 1] - one.view.steps.first[from]) / 8)));
        const first = Math.floor(one.view.steps.first[from] / round) * round;
        const last = Math.ceil(one.view.steps.last[to - 1] / round) * round;
        const fine = await source.refine(one.run, this.name, first, last, points).catch(() => null);
        if (!fine || window !== this.rangeX) return;
        fine.base = one.view.curve;
        one.fine = fine.over(this.axis, one.run.origin, one.other);
      }
      this.fit();
    }, 80);
  }

  unmount() {
    this.mounted = false;
    this.u?.destroy();
    this.u = null;
    this.shown = [];
  }

  build() {
    const { settings } = this.page;
    this.logX = settings.on("logx") && settings.get("x") !== "time";
    this.logY = settings.on("logy");
    this.axis = settings.get("x");
    this.findRanges();
    this.u?.destroy();
    const data = [[0, 1], [null, null]];
    this.u = new uPlot(
      {
        width: this.plot.clientWidth || 400,
        height: this.height,
        padding: [8, 20, 0, 0],
        legend: { show: false },
        scales: scalesOf(this.axis, this.logX, this.logY, () => this.rangeX, () => this.rangeY),
        axes: axesOf(this.axis),
        series: [{}, { show: true, points: { show: false }, paths: () => null }],
        cursor: {
          points: { show: false },
          drag: { x: true, y: false, setScale: false, dist: 5 },
          // The others show the crosshair; only the chart under the pointer zooms.
          sync: { key: "charts", scales: ["x", null], filters: { pub: isMove, sub: isMove } },
          bind: { dblclick: () => null },
        },
        hooks: {
          draw: [(u) => this.paint(u)],
          setCursor: [(u) => this.point(u)],
          setSelect: [(u) => this.select(u)],
        },
      },
      data,
      this.plot,
    );
    this.u.over.addEventListener("mouseleave", () => this.page.hover.hide());
    const reset = () => settings.set({ zoom: "" });
    gestures(this.u, (first, last) => this.page.zoom(first, last), reset);
  }

  // The window of x: what is zoomed to, or all that any shown run has.
  findRanges() {
    const window = this.page.settings.window;
    let [first, last] = [Infinity, -Infinity];
    const reach = (x) => {
      if (!Number.isFinite(x) || (this.logX && x <= 0)) return;
      [first, last] = [Math.min(first, x), Math.max(last, x)];
    };
    for (const { view } of this.shown) {
      const { marks } = view.curve.entry; // what is not finite is shown, too
      const ends = marks.length ? [marks[0][0], marks.at(-1)[0]] : [];
      for (const x of view.map ? view.map(Float64Array.from(ends)) : ends) reach(x);
      const end = view.mean.length - 1;
      if (end < 0) continue;
      let begin = 0;
      if (this.logX) while (begin < end && view.x.first[begin] <= 0) begin++;
      first = Math.min(first, view.x.first[begin]);
      last = Math.max(last, view.x.last[end]);
    }
    if (window) [first, last] = window;
    if (!(first <= last)) [first, last] = [0, 1];
    if (this.logX && first <= 0) first = Math.min(1, last / 10);
    if (first === last) [first, last] = this.logX ? [first / 2, last * 2] : [first - 0.5, last + 0.5];
    this.rangeX = this.logX ? [first, last] : widened(first, last);
    const options = { outliers: this.page.settings.on("outliers"), log: this.logY };
    const views = this.shown.map((one) => one.fine ?? one.view);
    this.rangeY = padded(rangeOf(views, first, last, options), this.logY);
  }

  // After a change of the window.
  rescale() {
    if (!this.u) return;
    this.fit();
    this.refine();
  }

  fit() {
    this.findRanges();
    this.u.batch(() => {
      this.u.setScale("x", { min: this.rangeX[0], max: this.rangeX[1] });
      this.u.setScale("y", { min: this.rangeY[0], max: this.rangeY[1] });
    });
    this.describe();
  }

  resize() {
    this.u?.setSize({ width: this.plot.clientWidth, height: this.height });
  }

  repaint() {
    this.u?.redraw(false, true);
  }

  paint(u) {
    const { left, top, width, height } = u.bbox;
    const place = {
      ...{ left, top, width, bottom: top + height, ratio: devicePixelRatio, log: this.logY },
      x: (value) => u.valToPos(value, "x", true),
      y: (value) => u.valToPos(reachable(value, this.rangeY), "y", true),
    };
    const { smooth } = this;
    const focus = this.page.focus;
    // The run that is pointed at is on top.
    const order = [...this.shown].sort((a, b) => (a.run === focus) - (b.run === focus));
    for (const { run, view: whole, fine } of order) {
      const view = fine ?? whole;
      const faint = focus && focus !== run && !focus.hidden && this.shown.length > 1;
      const style = { colour: run.colour, dash: run.dash, width: run === focus ? 2 : 1.5, faint };
      paintCurve(u.ctx, view, style, place, smooth, this.rangeX);
      paintMarks(u.ctx, view, style, place);
    }
    if (this.page.settings.on("marks")) paintLines(u.ctx, this.lines(), place, token("quiet"));
  }

  // How its curves are smoothed: by what weight over how many steps.
  get smooth() {
    const curves = this.shown.map(({ view }) => view.curve);
    return { weight: Number(this.page.settings.get("smooth")), unit: unitOf(curves) };
  }

  // Starts, checkpoints and errors of the chosen run, or of all that are shown.
  lines() {
    const { focus } = this.page;
    const chosen = this.shown.filter(({ run }) => !focus || focus.hidden || run === focus);
    const found = new Map();
    for (const { run, view } of chosen) {
      for (const [step, word] of run.marks) {
        const x = view.map ? view.map([step])[0] : step;
        found.set(`${x} ${word}`, [x, word]);
      }
    }
    return [...found.values()].sort((a, b) => a[0] - b[0]);
  }

  // What the title says: the last value, or that of the crosshair.
  point(u) {
    const { left, top } = u.cursor;
    if (!(left >= 0)) {
      this.describeValue(null);
      if (u.cursor.event && this.page.pointed === this) this.page.hover.hide();
      return;
    }
    const own = u.cursor.event && u.over.matches(":hover");
    const points = [];
    for (const { run, view: whole, fine } of this.shown) {
      const view = fine ?? whole;
      const point = nearest(view, u, left, own ? top : null);
      const mark = own && (top < 14 || top > this.height - 50) ? markAt(view, u, left) : null;
      if (point || mark) points.push({ run, curve: view.curve, point, mark });
    }
    if (this.shown.length === 1) this.describeValue(points[0]?.point ?? null);
    if (!own) return;
    this.page.pointed = this;
    const best = points.reduce((a, b) => (a && (a.point?.distance ?? 0) <= (b.point?.distance ?? 0) ? a : b), null);
    if (!best) return this.page.hover.hide();
    best.best = true;
    const box = u.over.getBoundingClientRect();
    const at = { x: box.left + left, y: box.top + top };
    this.page.hover.show(this.name, points, at, this.axis);
  }

  select(u) {
    const { left, width } = u.select;
    if (width < 3) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.page.zoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
  }

  describeValue(point) {
    const only = this.shown.length === 1 ? this.shown[0].view : null;
    const value = point ? point.value : only?.curve.entry.last;
    const text = only && value !== null && value !== undefined ? `${short(value)} ${unit(this.name)}` : "";
    this.value.textContent = text.trim();
    this.value.title = only && value !== null ? String(value) : "";
  }

  describe() {
    this.describeValue(null);
    const notes = [];
    const [first, last] = this.rangeX;
    const seen = this.shown.map((one) => one.fine ?? one.view);
    const level = Math.max(0, ...seen.map((view) => view.curve.entry.level));
    const visible = seen.some((view) => !view.curve.single && view.mean.length);
    if (this.failed) notes.push(this.failed);
    if (this.shown.length > 1) notes.push(`${this.shown.length} runs`);
    if (visible && this.page.settings.window)
      notes.push(level ? `band: ${count(2 ** level)} steps a point` : "band: several values a step");
    const bad = this.shown.reduce((sum, { view }) => sum + view.curve.entry.bad, 0);
    if (bad) notes.push(`${count(bad)} not finite`);
    if (this.logY && this.shown.some(({ view }) => view.y.low.some((value) => value <= 0)))
      notes.push("values ≤ 0 are not shown");
    if (this.without) notes.push(`no ${this.axis} in ${this.without} of the runs`);
    this.note.textContent = notes.join(" · ");
    this.summary.textContent =
      `${this.name} over ${this.axis} from ${short(first)} to ${short(last)}: ` +
      this.shown.map(({ run, view }) => `${run.name} ${summaryOf(view)}`).join("; ");
  }
}

function summaryOf(view) {
  if (!view.mean.length) return "has no finite value";
  let [low, high] = [0, 0];
  for (let i = 1; i < view.mean.length; i++) {
    if (view.y.low[i] < view.y.low[low]) low = i;
    if (view.y.high[i] > view.y.high[high]) high = i;
  }
  return (
    `begins with ${short(view.y.first[0])}, ends with ${short(view.curve.entry.last)}, ` +
    `smallest ${short(view.y.low[low])} at step ${view.steps.low[low]}, ` +
    `largest ${short(view.y.high[high])} at step ${view.steps.high[high]}`
  );
}
