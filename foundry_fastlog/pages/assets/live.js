// Starts the live page: first what needs no data, then the runs.

import { h } from "./dom.js";
import { LivePage } from "./livepage.js";
import { ask, LiveSource } from "./livesource.js";

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.getElementById("app");
root.replaceChildren(h("header.bar", {}, h("strong", {}, data.title), h("span.quiet", {}, "…")));

ask("/api/runs")
  .then((found) => {
    const page = new LivePage({ ...data, runs: found, made: "live" }, new LiveSource());
    page.start(root);
  })
  .catch((error) => root.append(h("p.empty", {}, `The runs cannot be listed: ${error.message}`)));
