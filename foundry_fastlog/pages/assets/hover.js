// What a chart says of the point under the pointer: the runs by value, in a box beside the point.

import { lowerBound } from "./curve.js";
import { clear, h, swatch } from "./dom.js";
import { count, duration, full, moment, named } from "./format.js";

const REACH = 6; // pixels
const MOST_ROWS = 14;
const PLACES = ["first", "low", "high", "last"];

// The point of a curve that is nearest to (left, top).
export function nearest(view, u, left, top) {
  const xs = view.x.first;
  if (!xs.length) return null;
  const [near, far] = [u.posToVal(left - REACH, "x"), u.posToVal(left + REACH, "x")];
  const centre = u.posToVal(left, "x");
  let from = lowerBound(xs, near);
  let to = lowerBound(xs, far);
  const middle = lowerBound(xs, centre);
  from = Math.max(0, Math.min(from, middle) - 1);
  to = Math.min(xs.length, Math.max(to, middle) + 1);
  let best = null;
  for (let i = from; i < to; i++) {
    for (const place of view.curve.single ? ["first"] : PLACES) {
      const across = Math.abs(u.valToPos(view.x[place][i], "x") - left);
      const value = view.y[place][i];
      const up = top === null ? 0 : Math.abs(u.valToPos(value, "y") - top);
      const direct = Math.hypot(across, up);
      // What is pointed at comes first; else what is above or below the pointer.
      const distance = direct < REACH ? direct - 1e6 : Math.round(across / 1.5) * 1e4 + (up || 0);
      if (best && distance >= best.distance) continue;
      const x = view.x[place][i];
      best = { distance, x, value, step: view.steps[place][i], count: view.count ? view.count[i] : 1 };
    }
  }
  const edge = u.bbox.width / devicePixelRatio;
  const at = best && u.valToPos(best.x, "x");
  return best && at >= -REACH && at <= edge + REACH ? best : null;
}

// A NaN or infinity whose mark is under the pointer.
export function markAt(view, u, left) {
  for (const [step, kind] of view.curve.entry.marks) {
    const x = view.map ? view.map([step])[0] : step;
    if (Math.abs(u.valToPos(x, "x") - left) <= REACH) return { step, kind };
  }
  return null;
}

export class Hover {
  constructor() {
    this.box = h("div.hover", { role: "tooltip", hidden: true });
    document.body.append(this.box);
    this.text = "";
    document.addEventListener("copy", (event) => {
      if (this.box.hidden || String(getSelection())) return;
      event.clipboardData.setData("text/plain", this.text);
      event.preventDefault();
    });
  }

  hide() {
    this.box.hidden = true;
  }

  // points: {run, curve, point, mark, best}. at: the pointer, in the window.
  show(name, points, at, axis) {
    const rows = [...points].sort((a, b) => (b.point?.value ?? -Infinity) - (a.point?.value ?? -Infinity));
    const best = rows.findIndex((row) => row.best);
    const first = Math.max(0, Math.min(best - (MOST_ROWS >> 1), rows.length - MOST_ROWS));
    const shown = rows.slice(first, first + MOST_ROWS);
    const more = rows.length - shown.length;
    clear(
      this.box,
      h("div.hover-name", {}, named(name)),
      h("table", {}, h("tbody", {}, shown.map((row) => this.row(row, axis)))),
      more > 0 ? [h("div.quiet", {}, `${more} more runs`)] : [],
    );
    this.text = rows.map((row) => this.line(name, row)).join("\n");
    this.box.hidden = false;
    this.place(at);
  }

  row({ run, curve, point, mark, best }, axis) {
    const value = mark ? mark.kind : full(point.value);
    const step = mark ? mark.step : point.step;
    const time = curve.timeAt(step);
    const when = axis === "relative" ? duration((time - run.origin) / 1000) : moment(time);
    const of = !mark && point.count > 1 ? ` of ${count(point.count)}` : "";
    return h(
      best ? "tr.best" : "tr",
      {},
      h("td", {}, swatch(run)),
      h("td.hover-run", {}, run.name),
      h("td.number", {}, value),
      h("td.number.quiet", {}, `step ${count(step)}${of}`),
      h("td.quiet", {}, when),
    );
  }

  line(name, { run, point, mark }) {
    const said = mark ? [mark.step, mark.kind] : [point.step, point.value];
    return [run.name, name, ...said].join("\t");
  }

  // Beside the pointer, on the side with more room, so that it never covers the point.
  place({ x, y }) {
    const gap = 18;
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const left = x > innerWidth / 2 ? x - gap - width : x + gap;
    const aside = left >= 4 && left + width <= innerWidth - 4;
    const top = aside ? y - height / 2 : y > innerHeight / 2 ? y - gap - height : y + gap;
    this.box.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
    this.box.style.top = `${Math.max(4, Math.min(top, innerHeight - height - 4))}px`;
  }
}
