// A table that sorts by a click on its head.

import { clear, h } from "./dom.js";
import { count } from "./format.js";

const AT_ONCE = 500; // rows

// columns: {title, of: row -> value to sort by, show: row -> text or elements, number: aligned right}.
export class Table {
  constructor(columns, rows, { caption = "", label = null, onrow = null, cls = "" } = {}) {
    this.columns = columns;
    this.rows = rows;
    this.onrow = onrow;
    this.label = label; // row -> class
    this.by = null;
    this.most = AT_ONCE;
    this.up = true;
    this.body = h("tbody");
    this.head = h("tr");
    this.element = h(
      "table.list",
      {},
      caption ? h("caption.unseen", {}, caption) : null,
      h("thead", {}, this.head),
      this.body,
    );
    if (cls) this.element.classList.add(cls);
    this.show();
  }

  sort(column) {
    this.up = this.by === column ? !this.up : !column.number;
    this.by = column;
    this.show();
  }

  set(rows) {
    this.rows = rows;
    this.show();
  }

  show() {
    clear(this.head, this.columns.map((column) => this.title(column)));
    const rows = this.sorted;
    clear(this.body, rows.slice(0, this.most).map((row) => this.row(row)));
    if (rows.length <= this.most) return;
    const all = () => {
      this.most = Infinity;
      this.show();
    };
    const more = h("button.choice", { type: "button", onclick: all }, `${count(rows.length - this.most)} more`);
    this.body.append(h("tr", {}, h("td", { colSpan: this.columns.length }, more)));
  }

  // The rows as they are on the screen.
  get sorted() {
    const of = this.by?.of;
    return of ? [...this.rows].sort((a, b) => compare(of(a), of(b), this.up)) : this.rows;
  }

  title(column) {
    const sorted = this.by === column;
    const sort = sorted ? (this.up ? "ascending" : "descending") : "none";
    const arrow = sorted ? (this.up ? " ▲" : " ▼") : "";
    const cell = h(column.number ? "th.number" : "th", { scope: "col", "aria-sort": sort });
    cell.append(
      column.of
        ? h("button.head", { type: "button", onclick: () => this.sort(column) }, column.title + arrow)
        : column.title,
    );
    return cell;
  }

  row(row) {
    const line = h("tr", {}, this.columns.map((column) => h(column.number ? "td.number" : "td", {}, column.show(row))));
    if (this.label) line.className = this.label(row);
    if (this.onrow) {
      line.addEventListener("click", (event) => {
        if (!event.target.closest("button, a, summary")) this.onrow(row);
      });
    }
    return line;
  }
}

// What is absent comes last, whichever way.
function compare(a, b, up) {
  const absent = (value) => value === null || value === undefined || value === "" || value !== value;
  if (absent(a) || absent(b)) return absent(a) - absent(b);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  return up ? order : -order;
}
