// The chosen run itself: facts, starts, whether its files are complete, and what recording cost.

import { clear, h } from "./dom.js";
import { count, duration, moment, percent, size } from "./format.js";
import { stateDot } from "./runs.js";
import { Table } from "./table.js";
import { scroll } from "./values.js";

export class AboutTab {
  constructor(page) {
    this.page = page;
    this.element = h("div");
  }

  show() {
    const run = this.page.chosen;
    clear(
      this.element,
      h("h2", {}, run.name),
      facts(run),
      h("h2", {}, "Starts"),
      run.starts.length ? scroll(starts(run)) : h("p.empty", {}, "Nothing says when the run began."),
      h("h2", {}, "Completeness"),
      complete(run),
      scroll(checks(run)),
      run.problems.length ? [h("h2", {}, "Problems"), problems(run)] : [],
    );
  }
}

function facts(run) {
  const [first, last] = run.steps;
  const cost = run.cost
    ? `${duration(run.cost[0])} of ${duration(run.cost[1])} (${percent(run.cost[0] / (run.cost[1] || 1))} of the time)`
    : "not known: no start that ended has noted it";
  const said = [
    ["state", [stateDot(run.state), run.state, run.error ? `: ${run.error}` : ""]],
    ["steps", first === null ? "none" : `${count(first)} to ${count(last)}`],
    ["time", `${moment(run.first)} to ${moment(run.last)} UTC, ${duration(run.wall_s)}`],
    ["ranks", run.ranks.length > 20 ? `${count(run.ranks.length)} ranks` : run.ranks.join(", ") || "none"],
    ["code", run.git || "not known"],
    ["recording cost", cost],
    ["size", `${size(run.bytes)} in ${count(run.lines)} lines`],
    ["directory", run.path],
  ];
  return h("dl.facts", {}, said.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function starts(run) {
  const columns = [
    { title: "start", number: true, of: (row) => row.number, show: (row) => String(row.number) },
    { title: "state", of: (row) => row.how, show: (row) => [stateDot(row.state), row.how] },
    { title: "began", of: (row) => row.started, show: (row) => moment(row.started) },
    { title: "ended", of: (row) => row.ended, show: (row) => moment(row.ended) },
    { title: "host", of: (row) => row.host, show: (row) => row.host },
    { title: "ranks", number: true, of: (row) => row.ranks, show: (row) => count(row.ranks) },
    { title: "code", of: (row) => row.git, show: (row) => row.git },
    {
      title: "logging",
      number: true,
      of: (row) => row.logging_s,
      show: (row) => (row.logging_s === null ? "–" : `${duration(row.logging_s)} of ${duration(row.wall_s)}`),
    },
    { title: "error", show: (row) => row.error },
    { title: "command", show: (row) => row.command },
  ];
  return new Table(columns, run.starts, { caption: "Starts" }).element;
}

function complete(run) {
  const dropped = Object.entries(run.dropped).map(([stream, number]) => `${count(number)} of ${stream}`);
  const left = Object.entries(run.left_out).map(([stream, number]) => `${count(number)} of ${stream}`);
  return [
    run.complete
      ? h("p.good", {}, `Complete: the numbers of all ${count(run.lines)} lines follow each other, none is missing or damaged.`)
      : h("p.bad", {}, incompleteness(run)),
    dropped.length ? h("p.bad", {}, `The recorder dropped records: ${dropped.join(", ")}.`) : [],
    left.length
      ? h("p.quiet", {}, `Values that a later start recorded again, or that were taken back, are not shown: ${left.join(", ")}.`)
      : [],
  ].flat();
}

// What is missing of a run, in a sentence; "" where nothing is.
export function incompleteness(run) {
  if (run.complete) return "";
  const sum = (key) => run.checks.reduce((all, check) => all + Number(check[key]), 0);
  const parts = ["missing", "damaged", "torn", "duplicates"].filter(sum).map((key) => `${count(sum(key))} ${key}`);
  if (run.unread) parts.push(`${count(run.unread)} files or rings that cannot be read`);
  const where = [...new Set(run.checks.filter((check) => !check.complete).map((check) => check.stream))];
  return `Incomplete: ${parts.join(", ") || "not all is known"}${where.length ? ` (${where.join(", ")})` : ""}.`;
}

function checks(run) {
  const number = (key, title = key) => ({
    title,
    number: true,
    of: (row) => row[key],
    show: (row) => (row[key] ? count(Number(row[key])) : "0"),
  });
  const columns = [
    { title: "stream", of: (row) => row.stream, show: (row) => row.stream },
    { title: "process", of: (row) => row.writer, show: (row) => row.writer },
    number("lines"),
    number("missing"),
    number("damaged"),
    number("torn"),
    number("duplicates"),
    number("dropped"),
    number("superseded", "left out"),
    {
      title: "complete",
      of: (row) => String(row.complete),
      show: (row) => h(row.complete ? "span.good" : "span.bad", {}, row.complete ? "yes" : "no"),
    },
  ];
  return new Table(columns, run.checks, { caption: "Completeness by stream and process" }).element;
}

function problems(run) {
  const more = run.more_problems ? h("li.quiet", {}, `${count(run.more_problems)} more: foundry-fastlog summary ${run.path}`) : [];
  return h("ul.problems", {}, run.problems.map((text) => h("li", {}, text)), more);
}
