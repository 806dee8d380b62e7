// The runs beside the charts: a table that sorts and filters; a click chooses a run.

import { clear, h, swatch } from "./dom.js";
import { count, duration, moment, percent, short } from "./format.js";
import { Table } from "./table.js";

export class RunsPanel {
  constructor(page) {
    this.page = page;
    this.filter = "";
    this.table = new Table(this.columns(), page.runs, {
      caption: "Runs",
      label: (run) => (run === page.focus ? "chosen" : "") + (run.hidden ? " hidden-run" : ""),
      onrow: (run) => page.choose(run),
      cls: "runs",
    });
    const search = h("input.filter", {
      type: "search",
      placeholder: page.where ? "Filter: a name, or last.loss < 2" : "Filter runs",
      "aria-label": "Filter runs",
      oninput: () => this.narrow(search.value.trim()),
    });
    this.chosen = null; // ids of runs that an expression is true of
    this.wrong = h("pre.wrong", { role: "status", hidden: true });
    this.card = h("div.card");
    const filter = page.runs.length > 1 || page.where ? search : null;
    this.element = h("nav.side", { "aria-label": "Runs" }, filter, this.wrong, this.table.element, this.card);
    page.settings.listen(["hide", "run"], () => this.show());
    this.show();
  }

  columns() {
    const { page } = this;
    return [
      {
        title: "run",
        of: (run) => run.name,
        show: (run) => [
          h(
            "button.eye",
            {
              type: "button",
              title: run.hidden ? "Show" : "Hide",
              "aria-pressed": String(!run.hidden),
              "aria-label": `Show ${run.name}`,
              onclick: () => page.toggle(run),
            },
            swatch(run),
          ),
          stateDot(run.state),
          h("span.run-name", { title: `${run.path}\n${run.state} ${run.error}`.trim() }, run.name),
        ],
      },
      {
        title: "step",
        number: true,
        of: (run) => run.steps[1],
        show: (run) => (run.steps[1] === null ? "–" : count(run.steps[1])),
      },
      ...(page.where
        ? [{ title: page.runs[0]?.metric ?? "loss", number: true, of: (run) => run.value, show: (run) => short(run.value) }]
        : []),
      // Of the starts together, where that is known: those of some runs are days apart.
      { title: "time", number: true, of: spent, show: (run) => duration(spent(run)) },
    ];
  }

  show() {
    clear(this.card, this.page.chosen ? facts(this.page.chosen) : []);
    const fits = (run) => (this.chosen ? this.chosen.has(run.id) : run.name.toLowerCase().includes(this.filter));
    this.table.set(this.page.runs.filter(fits));
  }

  // By a part of the name, or where the page can ask, by an expression.
  narrow(text) {
    clearTimeout(this.asking);
    this.filter = text.toLowerCase();
    this.chosen = null;
    this.wrong.hidden = true;
    const isExpression = this.page.where && /[<>=("'`]|\b(and|or|not|in)\b/.test(text);
    this.expression = isExpression ? text : "";
    if (!isExpression) return this.show();
    this.asking = setTimeout(() => this.again(), 250);
  }

  // Asks what the expression is true of now.
  async again() {
    const { expression } = this;
    if (!expression) return;
    let [chosen, wrong] = [null, ""];
    try {
      chosen = await this.page.where(expression);
    } catch (error) {
      wrong = error.message;
    }
    if (expression !== this.expression) return; // another one was typed meanwhile
    this.chosen = chosen;
    this.wrong.textContent = wrong;
    this.wrong.hidden = !wrong;
    this.show();
  }

  // The run above or below the chosen one.
  step(by) {
    const order = this.table.sorted;
    const at = order.indexOf(this.page.focus);
    const next = order[Math.max(0, Math.min(order.length - 1, at < 0 ? 0 : at + by))];
    if (next) this.page.choose(next, true);
  }
}

function spent(run) {
  return run.spent_s ?? run.wall_s;
}

// The chosen run in short.
function facts(run) {
  const said = [
    ["began", moment(run.started)],
    ["starts", run.starts.length > 1 ? count(run.starts.length) : ""],
    ["ranks", run.ranks.length > 1 ? count(run.ranks.length) : ""],
    ["code", run.git.slice(0, 12)],
    ["records", `${count(run.lines)}, ${run.complete ? "complete" : "incomplete"}`],
    ["recording", run.cost ? `${percent(run.cost[0] / (run.cost[1] || 1))} of the time` : ""],
    ["error", run.error],
    ["not read", run.problem],
  ].filter(([, value]) => value);
  const rows = said.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
  return h("dl.facts", { "aria-label": run.name }, rows);
}

export function stateDot(state) {
  return h(`span.dot.${state}`, { role: "img", "aria-label": state, title: state });
}
