// The metrics of the chosen run as numbers, and of several runs side by side.

import { clear, h } from "./dom.js";
import { count, full, named, short } from "./format.js";
import { Table } from "./table.js";

export class ValuesTab {
  constructor(page) {
    this.page = page;
    this.element = h("div");
  }

  show() {
    const asked = this.page.settings.get("q").trim().toLowerCase();
    const fits = (name) => name.toLowerCase().includes(asked);
    const run = this.page.chosen;
    const rows = run.metrics.filter((row) => fits(row.name));
    const parts = [];
    const shown = this.page.runs.filter((one) => !one.hidden);
    if (shown.length > 1) parts.push(h("h2", {}, "Last values"), scroll(this.sideBySide(shown, fits)));
    parts.push(h("h2", {}, shown.length > 1 ? run.name : "Values"), scroll(this.of(rows)));
    clear(this.element, parts);
  }

  of(rows) {
    const number = (key, step) => ({
      title: key,
      number: true,
      of: (row) => row[key],
      show: (row) => shown(row[key], step && row[step]),
    });
    return new Table(
      [
        { title: "metric", of: (row) => row.name, show: (row) => named(row.name) },
        number("last"),
        number("min", "min_step"),
        number("max", "max_step"),
        number("mean"),
        { title: "values", number: true, of: (row) => row.count, show: (row) => count(row.count) },
        {
          title: "not finite",
          number: true,
          of: (row) => row.bad,
          show: (row) => (row.bad ? h("span.bad", {}, count(row.bad)) : ""),
        },
      ],
      rows,
    ).element;
  }

  sideBySide(runs, fits) {
    const byRun = runs.map((run) => new Map(run.metrics.map((row) => [row.name, row])));
    const names = [...new Set(byRun.flatMap((rows) => [...rows.keys()]))].filter(fits);
    const columns = [{ title: "metric", of: (name) => name, show: (name) => name }];
    for (const [at, run] of runs.entries()) {
      const last = (name) => byRun[at].get(name)?.last;
      columns.push({ title: run.name, number: true, of: last, show: (name) => shown(last(name)) });
    }
    return new Table(columns, names).element;
  }
}

export function scroll(table) {
  return h("div.scroll", {}, table);
}

function shown(value, step) {
  if (value === undefined) return "";
  const title = full(value) + (step === null || step === undefined ? "" : ` at step ${count(step)}`);
  return h("span", { title }, typeof value === "string" ? value.slice(0, 80) : short(value));
}
