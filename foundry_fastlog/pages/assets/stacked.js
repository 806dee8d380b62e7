// A bar of parts side by side, and below it what each colour is.

import { h } from "./dom.js";
import { named, percent } from "./format.js";

// parts: [name, share, colour]; null as a colour for the rest. Shares of more than all are scaled.
export function stackedBar(parts) {
  const all = Math.max(1, parts.reduce((sum, [, share]) => sum + share, 0));
  const bar = h(
    "div.shares",
    { role: "img", "aria-label": parts.map(([name, share]) => `${name} ${percent(share)}`).join(", ") },
    parts.map(([name, share, colour]) =>
      h("div", {
        className: colour ? "share" : "share rest",
        title: `${name}: ${percent(share)}`,
        style: { width: `${(share / all) * 100}%`, ...(colour ? { background: colour } : {}) },
      }),
    ),
  );
  const names = parts.map(([name, share, colour]) =>
    h(
      "span.key",
      {},
      h(colour ? "span.box" : "span.box.rest", { style: colour ? { background: colour } : {} }),
      named(name),
      h("span.quiet", {}, ` ${percent(share)}`),
    ),
  );
  return h("div", {}, bar, h("div.keys", {}, names));
}
