"use strict";
// A page is whole without this script. With it, tables sort by a click on a heading and, when they
// are long, filter; dots show their values at once; and the verdict follows the cost and the loss
// that the reader chooses. Plain JavaScript: what a chart library would add is drawn already.

/** The number at the start of a cell ("1,024", "12.5 %"), or its text. */
function valueOf(text) {
  const number = parseFloat(text.replace(/,/g, "").replace("\u2212", "-"));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return a.localeCompare(b, "en", { numeric: true });
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells], head = heads[column], body = table.tBodies[0];
  const falls = head.getAttribute("aria-sort") === "ascending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", falls ? "descending" : "ascending");
  const cell = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const order = (a, b) => {
    if (!cell(a) || !cell(b)) return !cell(a) - !cell(b); // empty cells stay below
    return (falls ? -1 : 1) * compare(valueOf(cell(a)), valueOf(cell(b)));
  };
  body.append(...[...body.rows].sort(order));
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "sort";
    button.addEventListener("click", () => sortBy(table, column));
    head.append(button);
  });
}

/** A field above a table that hides the rows without its text. */
function filterable(table) {
  const field = document.createElement("input"), label = document.createElement("label");
  field.type = "search";
  label.className = "filter";
  label.append("rows with", field);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
  table.before(label);
}

/** The row of the greatest loss up to the one that is allowed, marked. */
function rungOf(table, allowed) {
  const rows = [...table.tBodies[0].rows];
  const able = rows.filter((row) => Number(row.dataset.allowed) <= allowed);
  rows.forEach((row) => row.removeAttribute("aria-current"));
  const chosen = able[able.length - 1];
  if (chosen) chosen.setAttribute("aria-current", "true");
  return chosen;
}

function answering(verdict) {
  const field = verdict.querySelector(".asked input"), said = verdict.querySelector(".answer");
  const answer = () => {
    const allowed = Math.max(0, Number(field.value) || 0);
    verdict.querySelectorAll(".rungs").forEach((table) => rungOf(table, allowed));
    const open = verdict.querySelector("input:checked + label + .panel .rungs");
    const row = open.querySelector("[aria-current]");
    const first = row === null || row === open.tBodies[0].rows[0];
    said.textContent = first
      ? open.dataset.answer
      : `${row.cells[1].textContent}: ${row.cells[2].textContent}.`;
  };
  verdict.querySelector(".asked").hidden = false;
  verdict.addEventListener("input", answer);
  answer();
}

/** Texts of dots beside the pointer; touch and the keyboard reach them, too. */
function hovering() {
  const box = document.createElement("div");
  box.id = "hover";
  box.hidden = true;
  document.body.append(box);
  const show = (point, x, y) => {
    box.textContent = point.dataset.text;
    box.hidden = false;
    box.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.offsetWidth - 4))}px`;
    box.style.top = `${Math.max(4, y - box.offsetHeight - 8)}px`;
  };
  for (const point of document.querySelectorAll("svg .point")) {
    const title = point.querySelector("title");
    point.dataset.text = title.textContent;
    title.remove(); // or the browser shows it as well
    point.setAttribute("aria-label", point.dataset.text);
    point.addEventListener("pointerenter", (e) => show(point, e.clientX, e.clientY));
    point.addEventListener("pointerleave", () => { box.hidden = true; });
    point.addEventListener("focus", () => {
      const at = point.getBoundingClientRect();
      show(point, at.right, at.top);
    });
    point.addEventListener("blur", () => { box.hidden = true; });
  }
  for (const figure of document.querySelectorAll("svg:has(.point)")) {
    const points = [...figure.querySelectorAll(".point")];
    points.forEach((point, i) => point.setAttribute("tabindex", i ? "-1" : "0"));
    figure.addEventListener("keydown", (e) => walk(points, e));
  }
}

/** Arrows go from dot to dot; one stop of the tabulator a figure. */
function walk(points, event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const at = points.indexOf(document.activeElement);
  if (!step || at < 0) return;
  event.preventDefault();
  const next = points[(at + step + points.length) % points.length];
  points[at].setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

const LONG = 8; // rows from which on a table has a filter
for (const table of document.querySelectorAll("table:not(.rungs)")) {
  if (!table.tHead || table.tBodies[0].rows.length < 2) continue;
  sortable(table);
  if (table.tBodies[0].rows.length >= LONG) filterable(table);
}
document.querySelectorAll(".verdict").forEach(answering);
hovering();
