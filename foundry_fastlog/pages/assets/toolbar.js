// The bar on top and the strip of tools for all charts.

import { h } from "./dom.js";
import { incompleteness } from "./about.js";
import { stateDot } from "./runs.js";

// Each step smooths about twice as much as the one before.
export const WEIGHTS = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 0.99999];

const MOST_AXES = 200;

export const TABS = {
  charts: "Charts",
  values: "Values",
  timings: "Timings",
  messages: "Messages",
  config: "Configuration",
  about: "Run",
  ranks: "Ranks",
};

export function topBar(page) {
  const { settings, runs } = page;
  const search = h("input.search", {
    type: "search",
    placeholder: "Search  /",
    "aria-label": "Search",
    value: settings.get("q"),
    oninput: () => settings.set({ q: search.value }),
  });
  settings.listen(["q"], () => {
    if (search.value !== settings.get("q")) search.value = settings.get("q");
  });
  page.searchBox = search;
  const side = h("button.icon", {
    type: "button",
    title: "Runs",
    "aria-label": "Show or hide the runs",
    textContent: "☰",
    onclick: () => settings.set({ side: settings.on("side") ? "0" : "1" }),
  });
  const theme = h("button.icon", {
    type: "button",
    title: "Light or dark (t)",
    "aria-label": "Light or dark",
    textContent: "◐",
    onclick: () => page.switchTheme(),
  });
  const help = h("button.icon", {
    type: "button",
    title: "Keys (?)",
    "aria-label": "Keys",
    textContent: "?",
    onclick: () => page.help.showModal(),
  });
  const one = runs.length === 1 && !page.source.refine ? runs[0] : null;
  const broken = runs.filter((run) => !run.complete);
  const name = one
    ? [stateDot(one.state), h("strong", {}, one.name), h("span.quiet.state", {}, one.state)]
    : [h("strong", {}, page.title), h("span.quiet.state", {}, `${runs.length} ${runs.length === 1 ? "run" : "runs"}`)];
  const warning = broken.length
    ? h(
        "button.warning",
        { type: "button", onclick: () => settings.set({ tab: "about", run: broken[0].name }) },
        one ? incompleteness(one) : `${broken.length} incomplete`,
      )
    : null;
  return h("header.bar", {}, side, h("div.title", {}, name, warning), search, theme, help);
}

export function tabList(page) {
  const { settings } = page;
  const buttons = Object.entries(TABS).map(([key, title]) =>
    h(
      "button.tab",
      { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": "panel", onclick: () => settings.set({ tab: key }) },
      title,
      page.badge(key),
    ),
  );
  const mark = () => {
    for (const button of buttons) {
      const isChosen = button.id === `tab-${settings.get("tab")}`;
      button.setAttribute("aria-selected", String(isChosen));
      if (isChosen) queueMicrotask(() => button.scrollIntoView({ block: "nearest", inline: "nearest" }));
    }
  };
  settings.listen(["tab"], mark);
  mark();
  return h("div.tabs", { role: "tablist" }, buttons);
}

export function toolStrip(page) {
  const { settings } = page;
  const axes = [
    ["step", "step"],
    ["epoch", "epoch"],
    ["time", "time (UTC)"],
    ["relative", "relative time"],
  ];
  const option = ([value, text]) => h("option", { value }, text.slice(0, 60));
  const metrics = h("optgroup", { label: "metric" });
  const x = h(
    "select",
    { "aria-label": "x axis", onchange: () => settings.set({ x: x.value, zoom: "" }) },
    axes.map(option),
    metrics,
  );
  // Another choice of runs has other metrics.
  page.updateAxes = () => {
    const names = page.names().filter(([, kind]) => !kind).map(([name]) => [name, name]);
    metrics.replaceChildren(...names.slice(0, MOST_AXES).map(option));
    x.value = settings.get("x");
  };
  page.updateAxes();
  const smooth = h("input", {
    type: "range",
    min: 0,
    max: WEIGHTS.length - 1,
    step: 1,
    "aria-label": "Smoothing",
    oninput: () => settings.set({ smooth: WEIGHTS[smooth.value] }),
  });
  const weight = h("output.weight");
  const reset = h("button.choice", { type: "button", title: "z", onclick: () => settings.set({ zoom: "" }) }, "zoom out");
  const follow = () => {
    x.value = settings.get("x");
    const known = Number(settings.get("smooth"));
    smooth.value = Math.max(0, WEIGHTS.findLastIndex((one) => one <= known));
    weight.value = known ? String(known) : "off";
    reset.hidden = !settings.window;
  };
  settings.listen(["x", "smooth", "zoom"], follow);
  follow();
  return h(
    "div.tools",
    { role: "group", "aria-label": "Charts" },
    h("label", {}, "x ", x),
    flag(settings, "logx", "log x"),
    flag(settings, "logy", "log y"),
    h("label.smooth", {}, "smooth ", smooth, weight),
    flag(settings, "outliers", "outliers"),
    flag(settings, "marks", "marks"),
    reset,
  );
}

function flag(settings, key, text) {
  const button = h(
    "button.choice",
    { type: "button", onclick: () => settings.set({ [key]: settings.on(key) ? "0" : "1" }) },
    text,
  );
  const follow = () => button.setAttribute("aria-pressed", String(settings.on(key)));
  settings.listen([key], follow);
  follow();
  return button;
}
