// All charts, grouped by the part of their names before "/". Charts out of view are not drawn.

import { Chart } from "./chart.js";
import { clear, h } from "./dom.js";
import { count } from "./format.js";

const AT_ONCE = 60; // charts, or groups

export class Grid {
  constructor(page) {
    this.page = page;
    this.element = h("div.grid");
    this.onview = null; // called when other charts come into view
    this.places = new Map(); // name -> element
    this.charts = new Map(); // name -> Chart, of those that were in view
    this.closed = new Set();
    this.seen = new Set();
    this.observer = new IntersectionObserver((entries) => this.look(entries), { rootMargin: "300px" });
    this.sizes = new ResizeObserver(() => this.visible((chart) => chart.resize()));
    this.sizes.observe(this.element);
    page.settings.listen(["x", "logx", "logy"], () => this.visible((chart) => chart.mount()));
    page.settings.listen(["hide"], () => this.show());
    page.settings.listen(["zoom", "outliers"], () => this.visible((chart) => chart.rescale()));
    page.settings.listen(["smooth", "marks"], () => this.repaint());
    page.settings.listen(["q"], () => this.show());
  }

  visible(act) {
    for (const chart of this.seen) act(chart);
  }

  get isLoading() {
    return [...this.seen].some((chart) => !chart.u);
  }

  repaint() {
    this.visible((chart) => chart.repaint());
  }

  look(entries) {
    for (const { target, isIntersecting } of entries) {
      const name = target.dataset.name;
      if (isIntersecting && !this.charts.has(name)) this.charts.set(name, new Chart(this.page, name, target));
      const chart = this.charts.get(name);
      if (isIntersecting && !this.seen.has(chart)) {
        this.seen.add(chart);
        chart.mount();
      } else if (!isIntersecting && this.seen.delete(chart)) chart.unmount();
    }
    this.page.busy(0);
    this.onview?.();
  }

  // The names that fit the search, of runs that are shown, by group.
  groups() {
    const asked = this.page.settings.get("q").trim().toLowerCase();
    const groups = new Map();
    for (const [name, kind] of this.page.names()) {
      if (asked && !name.toLowerCase().includes(asked)) continue;
      const cut = name.indexOf("/");
      const group = kind === "system" ? "system" : kind === "epoch" ? "epochs" : cut > 0 ? name.slice(0, cut) : "metrics";
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(name);
    }
    const last = (group) => (group === "system" ? 1 : 0);
    return [...groups].sort((a, b) => last(a[0]) - last(b[0]));
  }

  show() {
    this.observer.disconnect();
    this.visible((chart) => chart.unmount());
    this.seen.clear();
    const groups = this.groups();
    const asked = this.page.settings.get("q");
    const shown = this.page.runs.some((run) => !run.hidden);
    const why = asked
      ? `No metric has “${asked}” in its name.`
      : shown
        ? "There are no metrics: record some with Recorder.record(step, loss=...)."
        : "All runs are hidden. Press space to show the chosen one.";
    clear(this.element, groups.length ? [] : h("p.empty", {}, why));
    fill(this.element, groups, ([group, names]) => this.section(group, names));
  }

  section(group, names) {
    const body = h("div.charts", { hidden: this.closed.has(group) });
    const button = h(
      "button.group",
      {
        type: "button",
        "aria-expanded": String(!body.hidden),
        onclick: () => {
          body.hidden = !body.hidden;
          button.setAttribute("aria-expanded", String(!body.hidden));
          if (body.hidden) this.closed.add(group);
          else this.closed.delete(group);
        },
      },
      h("span.twist", { "aria-hidden": "true" }, "▾"),
      group,
      h("span.quiet", {}, count(names.length)),
    );
    fill(body, names, (name) => this.place(name));
    return h("section", { "aria-label": group }, h("h2", {}, button), body);
  }

  place(name) {
    if (!this.places.has(name)) this.places.set(name, h("figure.chart", { "data-name": name }));
    this.observer.observe(this.places.get(name));
    return this.places.get(name);
  }
}

// Adds some of many things, and more once their end comes into view: there may be ten thousand.
function fill(element, items, make) {
  element.append(...items.slice(0, AT_ONCE).map(make));
  const rest = items.slice(AT_ONCE);
  if (!rest.length) return;
  const end = h("p.empty", {}, `${count(rest.length)} more`);
  element.append(end);
  const observer = new IntersectionObserver(
    ([entry]) => {
      if (!entry.isIntersecting) return;
      observer.disconnect();
      end.remove();
      fill(element, rest, make);
    },
    { rootMargin: "600px" },
  );
  observer.observe(end);
}
