// Where the time went: a bar of shares, nested blocks as an icicle, and a table.

import { clear, h } from "./dom.js";
import { count, duration, named, percent } from "./format.js";
import { goodputOf } from "./goodput.js";
import { stackedBar } from "./stacked.js";
import { Table } from "./table.js";
import { scroll } from "./values.js";

const STRAGGLES = 0.1; // a rank that is slower than the median by more
const ROW = 30; // pixels of a level of the icicle

export class TimingsTab {
  constructor(page) {
    this.page = page;
    this.element = h("div");
  }

  show() {
    const run = this.page.chosen;
    const asked = this.page.settings.get("q").trim().toLowerCase();
    const goodput = run.goodput ? goodputOf(run.goodput) : [];
    if (!run.timings.length) {
      const how = "There are no timings. Record some: with recorder.timer(\"forward\", step=step): ...";
      return clear(this.element, h("p.empty", {}, how), goodput);
    }
    const tree = treeOf(run.timings);
    const colours = coloursOf(tree, this.page.data.colours);
    const rows = run.timings.filter((row) => row.name.toLowerCase().includes(asked));
    clear(
      this.element,
      h("h2", {}, "Shares", h("span.quiet", {}, ` of ${sharesOf(run)}`)),
      shares(run, tree, colours),
      h("h2", {}, "Nested blocks", h("span.quiet", {}, " by total time; nested as most of their time was")),
      icicle(tree, colours),
      h("h2", {}, "Blocks"),
      scroll(table(rows, colours)),
      run.by_rank.ranks ? byRank(run.by_rank) : [],
      goodput,
    );
  }
}

// The median of each block by rank: the darker, the slower than the others; stragglers have a frame.
function byRank({ ranks, medians }) {
  const head = h("tr", {}, h("th", { scope: "col" }, "block"), ranks.map((rank) => h("th.number", { scope: "col" }, `${rank}`)));
  const rows = Object.entries(medians).map(([name, values]) => {
    const middle = median(values);
    const spread = median(values.map((value) => (value === null ? null : Math.abs(value - middle))));
    const cells = values.map((value, at) => {
      if (value === null) return h("td.number.quiet", {}, "–");
      const slower = value / (middle || 1) - 1;
      const isOut = slower > STRAGGLES && value - middle > 5 * spread;
      const shade = Math.round(Math.min(1, Math.max(0, slower / 0.5)) * 60);
      const title = `${name}, rank ${ranks[at]}: ${duration(value)}, ${(slower + 1).toFixed(2)} x the median${isOut ? ": slow" : ""}`;
      const style = { background: `color-mix(in srgb, var(--accent) ${shade}%, transparent)` };
      return h(isOut ? "td.number.out" : "td.number", { title, style }, duration(value));
    });
    return h("tr", {}, h("td", {}, named(name)), cells);
  });
  const heat = h("table.list.heat", {}, h("caption.unseen", {}, "Medians by rank"), h("thead", {}, head), h("tbody", {}, rows));
  return [h("h2", {}, "Ranks", h("span.quiet", {}, " median of each block; a frame: slower than the other ranks")), scroll(heat)];
}

function median(values) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  return known.length ? (known[(known.length - 1) >> 1] + known[known.length >> 1]) / 2 : 0;
}

function sharesOf(run) {
  const [base, seconds] = run.timing_base;
  return `${base === "step" ? "all steps" : "the time of all processes"}: ${duration(seconds)}`;
}

// Each block below its parent, largest first; `begin` and `end` are shares of the whole.
function treeOf(timings) {
  const nodes = new Map(timings.map((row) => [row.name, { ...row, children: [] }]));
  const roots = [];
  for (const node of nodes.values()) {
    const parent = node.parent === null ? undefined : nodes.get(node.parent); // a block may be called ""
    (parent?.children ?? roots).push(node);
  }
  const total = roots.reduce((sum, node) => sum + node.total_s, 0);
  lay(roots, 0, 1, total, 0);
  return roots;
}

function lay(nodes, begin, end, total, depth) {
  nodes.sort((a, b) => b.total_s - a.total_s);
  const all = nodes.reduce((sum, node) => sum + node.total_s, 0);
  const scale = (end - begin) / (Math.max(total, all) || 1); // threads may overlap
  for (const node of nodes) {
    Object.assign(node, { begin, end: begin + node.total_s * scale, depth });
    lay(node.children, node.begin, node.end, node.total_s, depth + 1);
    begin = node.end;
  }
}

function each(nodes, act) {
  for (const node of nodes) {
    act(node);
    each(node.children, act);
  }
}

// What is below the blocks of a step has colours of its own; what is in between is grey.
function coloursOf(tree, palette) {
  const found = new Map();
  let next = 0;
  const top = tree.length === 1 || tree[0].children.length ? tree.flatMap((node) => (node.children.length ? node.children : [node])) : tree;
  for (const node of top) {
    const colour = palette[next++ % palette.length];
    each([node], (one) => found.set(one.name, colour));
  }
  return found;
}

function shares(run, tree, colours) {
  const step = tree.find((node) => node.name === "step" && run.timing_base[0] === "step");
  const parts = (step ? step.children : tree).filter((node) => node.share !== null);
  const rest = Math.max(0, 1 - parts.reduce((sum, node) => sum + node.share, 0));
  const shown = parts.map((node) => [node.name, node.share, colours.get(node.name)]);
  if (rest > 0.001) shown.push(["not timed", rest, null]);
  return stackedBar(shown);
}

function icicle(tree, colours) {
  const blocks = [];
  let deepest = 0;
  each(tree, (node) => {
    deepest = Math.max(deepest, node.depth);
    if (node.end - node.begin < 0.0005) return;
    const said = `p50 ${duration(node.p50_s)}, p99 ${duration(node.p99_s)}`;
    const colour = colours.get(node.name);
    blocks.push(
      h(
        "div.block",
        {
          className: colour ? "block" : "block rest",
          title: `${node.name}: ${duration(node.total_s)} in ${count(node.count)}, ${said}`,
          style: {
            left: `${node.begin * 100}%`,
            width: `calc(${(node.end - node.begin) * 100}% - 1px)`,
            top: `${node.depth * ROW}px`,
            ...(colour ? { "--block": colour, "border-top-color": colour } : {}),
          },
        },
        h("span", {}, named(node.name)),
        h("span.quiet", {}, ` ${said}`),
      ),
    );
  });
  return h("div.icicle", { style: { height: `${(deepest + 1) * ROW}px` } }, blocks);
}

function table(rows, colours) {
  const time = (key, title) => ({
    title,
    number: true,
    of: (row) => row[key],
    show: (row) => h("span", { title: `${row[key]} s` }, duration(row[key])),
  });
  const columns = [
    {
      title: "block",
      of: (row) => row.name,
      show: (row) => [
        h("span.box", { style: { background: colours.get(row.name) ?? "var(--line)" } }),
        named(row.name),
        row.parent !== null ? h("span.quiet", {}, ` in ${named(row.parent)}`) : "",
      ],
    },
    { title: "share", number: true, of: (row) => row.share, show: (row) => percent(row.share) },
    time("total_s", "total"),
    { title: "count", number: true, of: (row) => row.count, show: (row) => count(row.count) },
    time("p50_s", "p50"),
    time("p99_s", "p99"),
    time("max_s", "longest"),
    {
      title: "errors",
      number: true,
      of: (row) => row.errors,
      show: (row) => (row.errors ? h("span.bad", {}, count(row.errors)) : ""),
    },
  ];
  return new Table(columns, rows, { caption: "Timed blocks" }).element;
}
