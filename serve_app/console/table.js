// A table that is kept in step with its rows. Its roles are said outright: on a phone its rows are laid out as blocks.

import { make, setText, sync } from "./dom.js";

// columns: {label, value(row) -> text, draw(cell, row), isHead, isNumber, isWide: it needs a line of its own on a phone}
export const NONE = "–"; // a phone leaves such cells out

export function dataTable(label, columns) {
  const body = make("tbody", { role: "rowgroup" });
  const heads = columns.map((column) =>
    make("th", { text: column.label, scope: "col", role: "columnheader", kind: column.isNumber ? "number" : undefined }),
  );
  const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads));
  const element = make("table", { role: "table", "aria-label": label }, head, body);
  return { element, update: (rows) => sync(body, rows, { key: (row) => row.key, create: () => line(columns), update: (made, row) => fill(made, columns, row) }) };
}

function line(columns) {
  const cells = columns.map((column) => {
    const cell = column.isHead ? make("th", { scope: "row", role: "rowheader" }) : make("td", { role: "cell" });
    if (column.isNumber) cell.className = "number";
    if (column.isWide) cell.className = "wide";
    cell.dataset.label = column.label;
    cell.append(make("span"));
    return cell;
  });
  return make("tr", { role: "row" }, ...cells);
}

function fill(made, columns, row) {
  columns.forEach((column, index) => {
    const cell = made.children[index];
    const text = column.value(row);
    setText(cell.firstChild, text);
    cell.classList.toggle("none", text === NONE);
    column.draw?.(cell, row);
  });
}

// Has a cell show a share of a hundred as a bar as well.
export function bar(cell, share) {
  if (!cell.querySelector(".bar")) cell.append(make("span", { kind: "bar", "aria-hidden": "true" }));
  cell.querySelector(".bar").style.setProperty("--share", `${share}%`);
}
