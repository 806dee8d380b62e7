// The ranks of a run: which one is slow, since when, where; a heat map of rank x step; a table.

import { decode } from "./decode.js";
import { clear, h, token } from "./dom.js";
import { count, duration, percent } from "./format.js";
import { Table } from "./table.js";
import { scroll } from "./values.js";

const FULL = 1.3; // the ratio at which the colour is full
const LEFT = 44; // pixels for the numbers of ranks
const BELOW = 20; // and for those of steps
const TALLEST = 480;
const ABOVE = 6; // for half of the first number
const LEGEND = [1, 1.05, 1.15, 1.3];

export class RanksTab {
  constructor(page) {
    this.page = page;
    this.element = h("div");
    this.tip = h("div.hover", { role: "tooltip", hidden: true });
    new MutationObserver(() => this.paint()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    new ResizeObserver(() => this.paint()).observe(this.element);
  }

  show() {
    const run = this.page.chosen;
    const map = run.rank_map;
    this.map = null;
    this.tip.hidden = true;
    if (!map) {
      const how = run.ranks.length > 1 ? "There are no timings: record some with recorder.timer(\"forward\", step=step)." : "This run has one rank: there is nothing to compare it with.";
      return clear(this.element, h("p.empty", {}, how));
    }
    const said = map.sentences.map((one, at) => h(at < map.slow.length ? "li.bad" : "li", {}, one));
    if (map.more) said.push(h("li.quiet", {}, `${count(map.more)} more: foundry-fastlog ranks --json`));
    clear(
      this.element,
      h("ul.said", {}, said, map.notes.map((one) => h("li.quiet", {}, one))),
      map.heat ? this.heat(map) : [],
      map.slowdown === null ? [] : h("p.quiet", {}, whatIf(map.slowdown)),
      h("h2", {}, "Ranks"),
      scroll(table(map)),
      this.tip,
    );
  }

  heat(map) {
    const { heat } = map;
    const cell = heat.width === 1 ? "a cell is one step" : `a cell is the median of ${count(heat.width)} steps`;
    const about = `own work as a multiple of the median ${duration(heat.typical_s)}; ${cell}`;
    const label = `Heat map of ${heat.ranks.length} ranks by step. ${map.sentences.join(" ")}`;
    this.canvas = h("canvas.ranks", { role: "img", "aria-label": label });
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    decode(heat.cells).then(([cells]) => {
      if (this.page.chosen.rank_map !== map) return; // another run was chosen meanwhile
      this.map = { ...map, cells };
      this.paint();
    });
    const keys = LEGEND.map((level, at) => {
      const more = at === LEGEND.length - 1 ? " or more" : "";
      return h("span.key", {}, h("span.box", { style: { background: shade(level) } }), `${level} x${more}`);
    });
    if (map.slow.length) keys.push(h("span.key", {}, h("span.box.out", {}), "slow by itself"));
    return [h("h2", {}, "Rank by step", h("span.quiet", {}, ` ${about}`)), this.canvas, h("div.keys", {}, keys)];
  }

  // Where a cell lies: rows are ranks, columns buckets of steps.
  layout() {
    const { heat } = this.map;
    const width = this.element.clientWidth;
    const row = Math.max(2, Math.min(18, Math.floor(TALLEST / heat.ranks.length)));
    const column = Math.max(0, width - LEFT) / heat.steps.length;
    return { width, row, column, height: row * heat.ranks.length };
  }

  paint() {
    if (!this.map || !this.canvas?.isConnected || !this.element.clientWidth) return;
    const { heat, cells, slow } = this.map;
    const { width, row, column, height } = this.layout();
    const ratio = devicePixelRatio;
    Object.assign(this.canvas, { width: Math.round(width * ratio), height: Math.round((ABOVE + height + BELOW) * ratio) });
    this.canvas.style.height = `${ABOVE + height + BELOW}px`;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, ABOVE * ratio);
    const gap = row > 6 ? 1 : 0;
    context.fillStyle = token("accent");
    for (let y = 0; y < heat.ranks.length; y++) {
      for (let x = 0; x < heat.steps.length; x++) {
        const value = cells[y * heat.steps.length + x];
        if (!value) continue;
        context.globalAlpha = strength(value / 100);
        const from = Math.floor(x * column * ratio) / ratio;
        const to = Math.floor((x + 1) * column * ratio) / ratio;
        context.fillRect(LEFT + from, y * row, Math.max(1 / ratio, to - from), row - gap);
      }
    }
    context.globalAlpha = 1;
    context.strokeStyle = token("bad");
    context.lineWidth = 1.5;
    for (const [ranks, since, until] of slow) {
      for (const rank of ranks) {
        const y = heat.ranks.indexOf(rank);
        const [from, to] = [columnOf(heat, since), until === null ? heat.steps.length : columnOf(heat, until) + 1];
        if (y >= 0) context.strokeRect(LEFT + from * column, y * row, (to - from) * column, Math.max(2, row - gap));
      }
    }
    this.label(context, heat, row, height, width);
  }

  label(context, heat, row, height, width) {
    context.fillStyle = token("quiet");
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    const every = Math.ceil(14 / row);
    for (let y = 0; y < heat.ranks.length; y += every) context.fillText(String(heat.ranks[y]), LEFT - 6, (y + 0.5) * row);
    context.textAlign = "left";
    context.fillText(`step ${count(heat.steps[0])}`, LEFT, height + BELOW / 2 + 2);
    context.textAlign = "right";
    context.fillText(count(heat.last), width, height + BELOW / 2 + 2);
  }

  point(event) {
    this.tip.hidden = true;
    if (!this.map) return;
    const { heat, cells, ranks } = this.map;
    const { row, column } = this.layout();
    const [x, y] = [Math.floor((event.offsetX - LEFT) / column), Math.floor((event.offsetY - ABOVE) / row)];
    if (x < 0 || y < 0 || x >= heat.steps.length || y >= heat.ranks.length) return;
    const value = cells[y * heat.steps.length + x];
    const host = ranks.find((one) => one.rank === heat.ranks[y])?.host;
    const last = x + 1 < heat.steps.length ? heat.steps[x + 1] - 1 : heat.last;
    const steps = last > heat.steps[x] ? `steps ${count(heat.steps[x])} to ${count(last)}` : `step ${count(last)}`;
    const time = value ? `${duration((heat.typical_s * value) / 100)}, ${(value / 100).toFixed(2)} x the median` : "no time";
    clear(
      this.tip,
      h("div.hover-name", {}, `rank ${heat.ranks[y]}${host ? ` on ${host}` : ""}`),
      h("div", {}, time),
      h("div.quiet", {}, steps),
    );
    this.tip.hidden = false;
    const gap = 18;
    const { offsetWidth: width, offsetHeight: tall } = this.tip;
    const left = event.clientX > innerWidth / 2 ? event.clientX - gap - width : event.clientX + gap;
    this.tip.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
    this.tip.style.top = `${Math.max(4, Math.min(event.clientY - tall / 2, innerHeight - tall - 4))}px`;
  }
}

// One hue: the slower, the stronger.
function strength(ratio) {
  return Math.max(0.08, Math.min(1, 0.12 + (0.88 * (ratio - 1)) / (FULL - 1)));
}

function shade(ratio) {
  return `color-mix(in srgb, var(--accent) ${Math.round(strength(ratio) * 100)}%, transparent)`;
}

// The bucket that a step is in.
function columnOf(heat, step) {
  const next = heat.steps.findIndex((first) => first > step);
  return Math.max(0, (next < 0 ? heat.steps.length : next) - 1);
}

function whatIf(slowdown) {
  return `What if: S = ${slowdown.toFixed(3)}. If each block took the mean of all ranks, the steps would take ${percent(1 - 1 / slowdown)} less.`;
}

function table({ ranks, slow }) {
  const out = new Set(slow.flatMap(([several]) => several));
  const score = (key, title) => ({ title, number: true, of: (row) => row[key], show: (row) => row[key]?.toFixed(2) ?? "–" });
  const time = (title, of) => ({ title, number: true, of, show: (row) => duration(of(row)) });
  const columns = [
    { title: "rank", number: true, of: (row) => row.rank, show: (row) => (out.has(row.rank) ? h("span.bad", {}, `${row.rank}`) : `${row.rank}`) },
    ...(ranks.some((row) => row.host) ? [{ title: "host", of: (row) => row.host, show: (row) => row.host }] : []),
    time("step", (row) => row.step_s),
    time("own work", (row) => row.work_s),
    time("waiting", (row) => row.wait_s),
    { title: "of its time", number: true, of: (row) => row.wait_share, show: (row) => percent(row.wait_share) },
    score("score", "score"),
    score("history_score", "own history"),
    { title: "S_w", number: true, of: (row) => row.slowdown, show: (row) => row.slowdown?.toFixed(3) ?? "–" },
    time("clock", (row) => row.clock && row.clock.offset_s),
  ];
  const first = (row) => (out.has(row.rank) ? 0 : 1);
  const rows = [...ranks].sort((a, b) => first(a) - first(b) || (a.score ?? 1) - (b.score ?? 1));
  return new Table(columns, rows, { caption: "Ranks" }).element;
}
