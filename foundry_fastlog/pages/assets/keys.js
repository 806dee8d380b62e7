// What the keyboard does, and the list of it.

import { h } from "./dom.js";

const KEYS = [
  ["/", "search"],
  ["j  k", "next or previous run"],
  ["space", "hide or show the chosen run"],
  ["z", "zoom out"],
  ["t", "light or dark"],
  ["1 … 7", "the tabs"],
  ["?", "this list"],
  ["drag", "zoom into a chart"],
  ["shift + drag", "move along"],
  ["ctrl + wheel", "zoom"],
  ["double click", "zoom out"],
  ["ctrl + c", "over a point: copy its value"],
];

export function helpBox() {
  const rows = KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]);
  const box = h(
    "dialog.help",
    { "aria-label": "Keys" },
    h("form", { method: "dialog" }, h("h2", {}, "Keys"), h("dl.facts", {}, rows.flat()), h("button.choice", {}, "close")),
  );
  return box;
}

export function listenToKeys(page, tabs) {
  const { settings } = page;
  const acts = {
    "/": () => page.searchBox.focus(),
    j: () => page.panel.step(1),
    k: () => page.panel.step(-1),
    " ": () => page.toggle(page.chosen),
    z: () => settings.set({ zoom: "" }),
    t: () => page.switchTheme(),
    "?": () => page.help.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || page.help.open) return;
    const writes = target.matches("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape" && writes) return target.blur();
    if (writes || (event.key === " " && target.matches("button, summary, input"))) return;
    const tab = Object.keys(tabs)[Number(event.key) - 1];
    if (tab) settings.set({ tab });
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  });
}
