"use strict";
// The list of runs asks for their state every two seconds and writes what has changed into its
// cells, so that place, order, filter and focus stay. Nothing it is told becomes markup.
const PAUSE = 2000; // milliseconds
const list = document.querySelector("table.runs"), told = document.querySelector("#live");

function say(text) {
  if (told.textContent !== text) told.textContent = text;
}

/** A value in a cell, and the number that it is sorted by. */
function fill(cell, { text, value }) {
  const holder = cell.querySelector("a") ?? cell;
  if (holder !== cell) {
    holder.hidden = !text;
    holder.setAttribute("href", value ?? "");
  } else if (value === null) {
    delete cell.dataset.value;
  } else {
    cell.dataset.value = value;
  }
  if (holder.textContent !== text) holder.textContent = text;
}

function refresh(runs) {
  const rows = new Map([...list.tBodies[0].rows].map((row) => [row.dataset.run, row]));
  for (const { run, cells } of runs) {
    let row = rows.get(run);
    if (!row) {
      row = document.querySelector("#row").content.firstElementChild.cloneNode(true);
      row.dataset.run = run;
      list.tBodies[0].append(row);
    }
    rows.delete(run);
    for (const cell of row.cells) fill(cell, cells[cell.dataset.field]);
  }
  rows.forEach((row) => row.remove());
  document.querySelector("#none").hidden = runs.length > 0;
}

async function ask() {
  try {
    if (!document.hidden) {
      const answer = await fetch("/runs.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      refresh(await answer.json());
      say("This list follows the folders.");
    }
  } catch {
    say("The server does not answer; the list is as it was last.");
  }
  setTimeout(ask, PAUSE);
}

setTimeout(ask, PAUSE);
