// Where the wall time of a run went, from its first start to its end.

import { h } from "./dom.js";
import { duration, percent } from "./format.js";
import { stackedBar } from "./stacked.js";
import { Table } from "./table.js";
import { scroll } from "./values.js";

export function goodputOf(found) {
  const share = (seconds) => seconds / (found.wall_s || 1);
  const head = found.goodput === null ? "" : ` ${percent(found.goodput)} of ${duration(found.wall_s)}, rank ${found.rank}`;
  const columns = [
    {
      title: "kind",
      of: (row) => row.name,
      show: (row) => [h("span.box", { style: { background: row.colour } }), row.name],
    },
    {
      title: "time",
      number: true,
      of: (row) => row.seconds,
      show: (row) => h("span", { title: `${row.seconds} s` }, duration(row.seconds)),
    },
    { title: "share", number: true, of: (row) => row.seconds, show: (row) => percent(share(row.seconds)) },
  ];
  return [
    h("h2", {}, "Goodput", h("span.quiet", {}, head)),
    stackedBar(found.parts.map((part) => [part.name, share(part.seconds), part.colour])),
    h("p.goodput", {}, found.loss),
    scroll(new Table(columns, found.parts, { caption: "Wall time by kind" }).element),
    found.notes.map((note) => h("p.quiet", {}, note)),
  ].flat();
}
