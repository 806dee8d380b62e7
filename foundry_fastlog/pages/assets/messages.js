// What a run said: errors, grouped, and messages; both are filtered as one types.

import { clear, h } from "./dom.js";
import { count, moment } from "./format.js";

export class MessagesTab {
  constructor(page) {
    this.page = page;
    this.level = "";
    this.element = h("div");
  }

  show() {
    const run = this.page.chosen;
    const asked = this.page.settings.get("q").trim().toLowerCase();
    const groups = run.errors.groups.filter((group) => fits(group, asked));
    const lines = run.messages.lines.filter(
      (line) => (!this.level || line[1] === this.level) && (!asked || textOf(line).includes(asked)),
    );
    const { total } = run.messages;
    const kept = run.messages.lines.length;
    clear(
      this.element,
      h("h2", {}, "Errors", h("span.quiet", {}, ` ${count(groups.length)} ${groups.length === 1 ? "kind" : "kinds"}`)),
      groups.length ? h("div.lines", {}, groups.map(errorLine)) : h("p.empty", {}, nothing(asked, run.errors.groups, "error")),
      run.errors.omitted ? h("p.quiet", {}, `${count(run.errors.omitted)} more kinds: foundry-fastlog tail -s errors ${run.path}`) : [],
      h("h2", {}, "Messages", h("span.quiet", {}, ` ${count(lines.length)} of ${count(total)}`)),
      this.levels(run),
      total > kept
        ? h("p.quiet", {}, `The first and last ${count(kept)} of ${count(total)} messages are here; all: foundry-fastlog export ${run.path} -s log --to -`)
        : [],
      lines.length
        ? h("div.lines", {}, lines.map((line) => messageLine(line, run.ranks.length > 1)))
        : h("p.empty", {}, nothing(asked || this.level, run.messages.lines, "message")),
    );
  }

  levels(run) {
    const all = [["", run.messages.lines.length], ...Object.entries(run.messages.levels)];
    return h(
      "div.choices",
      { role: "group", "aria-label": "Levels" },
      all.map(([level, number]) =>
        h(
          "button.choice",
          {
            type: "button",
            "aria-pressed": String(this.level === level),
            onclick: () => {
              this.level = level;
              this.show();
            },
          },
          level ? level.toLowerCase() : "all",
          h("span.quiet", {}, ` ${count(number)}`),
        ),
      ),
    );
  }
}

function nothing(asked, all, what) {
  if (asked && all.length) return `No ${what} fits the search.`;
  return what === "error" ? "No errors were recorded." : "No messages were recorded.";
}

function fits(group, asked) {
  return !asked || [group.type, group.message, group.logger, group.traceback].some((text) => text.toLowerCase().includes(asked));
}

function textOf([, level, logger, , message, fields]) {
  return [level, logger, message, ...fields.flat()].join(" ").toLowerCase();
}

function stepped(step) {
  return step === null || step === undefined ? "" : `step ${count(step)}`;
}

function errorLine(group) {
  const { first, last } = group;
  const when = group.count > 1 ? `${moment(first.time)} to ${moment(last.time)}` : moment(first.time);
  const steps = first.step === last.step ? stepped(first.step) : `${stepped(first.step)} to ${count(last.step ?? 0)}`;
  const ranks = group.ranks.length > 1 || group.ranks[0] ? ` · ranks ${group.ranks.join(", ")}` : "";
  return h(
    "details.line",
    {},
    h(
      "summary",
      {},
      h(`span.level.${group.level}`, {}, group.type || group.level),
      h("span.times", {}, group.count > 1 ? `× ${count(group.count)}` : ""),
      h("span.message", {}, group.message),
      h("span.quiet.when", {}, steps),
    ),
    h("p.quiet", {}, `${when} · ${group.logger}${ranks}`),
    group.traceback ? h("pre", {}, group.traceback) : [],
  );
}

function messageLine([time, level, logger, step, message, fields, rank], ranked) {
  const head = [
    h("span.quiet.when", {}, moment(time)),
    h(`span.level.${level}`, {}, level),
    h("span.quiet.logger", {}, ranked ? `r${rank} ${logger}` : logger),
    h("span.message", {}, message),
    h("span.quiet.fields", {}, fields.slice(0, 4).map(([key, value]) => `${key}=${value}`).join(" ")),
    h("span.quiet", {}, stepped(step)),
  ];
  if (!fields.length && message.length < 100) return h("div.line.plain", {}, head);
  return h("details.line", {}, h("summary", {}, head), h("pre", {}, message), fieldList(fields));
}

function fieldList(fields) {
  if (!fields.length) return [];
  return h("dl.facts", {}, fields.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));
}
