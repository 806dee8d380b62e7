// The configuration of each run that is shown, with marks where they differ.

import { clear, h } from "./dom.js";
import { count } from "./format.js";
import { Table } from "./table.js";
import { scroll } from "./values.js";

export class ConfigTab {
  constructor(page) {
    this.page = page;
    this.only = false;
    this.element = h("div");
  }

  show() {
    const runs = this.page.runs.filter((run) => !run.hidden);
    const asked = this.page.settings.get("q").trim().toLowerCase();
    const configs = runs.map((run) => new Map(run.config));
    const names = [...new Set(configs.flatMap((config) => [...config.keys()]))];
    const rows = names
      .map((name) => {
        const values = configs.map((config) => config.get(name));
        return { name, values, differs: new Set(values).size > 1 };
      })
      .filter(({ name, values, differs }) => (differs || !this.only) && fits(asked, name, values));
    if (!names.length) {
      const how = "No configuration was recorded: pass Recorder(path, config={...}).";
      return clear(this.element, h("p.empty", {}, how));
    }
    const differing = rows.filter((row) => row.differs).length;
    const columns = [{ title: "setting", of: (row) => row.name, show: (row) => row.name }];
    for (const [at, run] of runs.entries()) {
      columns.push({ title: run.name, of: (row) => row.values[at], show: (row) => row.values[at] ?? "–" });
    }
    const table = new Table(columns, rows, {
      caption: "Configuration",
      label: (row) => (row.differs ? "differs" : ""),
    });
    clear(
      this.element,
      h("h2", {}, "Configuration", h("span.quiet", {}, ` ${count(rows.length)} settings`)),
      runs.length > 1 ? this.choice(differing) : [],
      scroll(table.element),
    );
  }

  choice(differing) {
    const box = h("input", {
      type: "checkbox",
      checked: this.only,
      onchange: () => {
        this.only = box.checked;
        this.show();
      },
    });
    return h("label.option", {}, box, `only what differs (${count(differing)})`);
  }
}

function fits(asked, name, values) {
  return !asked || [name, ...values].some((text) => text !== undefined && text.toLowerCase().includes(asked));
}
