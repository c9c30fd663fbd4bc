// The board as a reader wants it: sorted, filtered, with the columns chosen. All of it stands in the address, and only
// there, so that the address shows the same to whoever opens it.

const CHOICES = ["q", "task", "flat", "ranked", "seeds", "sort", "columns"];
const MULTIPLES = { k: 1e3, m: 1e6, g: 1e9, "%": 1 };

export function startTable() {
  const table = document.getElementById("board");
  if (!table) return;
  const tools = document.getElementById("tools");
  const view = {
    table,
    tools,
    heads: [...table.tHead.rows[0].cells],
    hasAll: Boolean(table.dataset.whole),
    groups: [...table.tBodies].map((body) => ({ body, head: body.rows[0], rows: [...body.rows].slice(1) })),
  };
  fill(view, read());
  show(view, read());
  if (tools.dataset.isHeard) return;
  tools.dataset.isHeard = "1";
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", (event) => change(choicesOf(view, event.target)));
  tools.addEventListener("reset", () => change(Object.fromEntries(CHOICES.map((name) => [name, ""]))));
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th[data-key]");
    if (head) change({ sort: nextSort(head, read().sort) });
  });
  table.closest("form")?.addEventListener("change", () => count(view));

  function change(choices) {
    const before = read();
    write({ ...before, ...choices });
    fill(view, read());
    show(view, read());
    // Where a server answers columns are its own: the page asks for itself with those that were chosen.
    if (!view.hasAll && read().columns !== before.columns) document.dispatchEvent(new Event("look"));
  }
}

document.addEventListener("keydown", (event) => {
  const search = document.querySelector("#tools [name=q]");
  if (!search) return;
  const isTyping = event.target.matches?.("input:not([type=checkbox]), select, textarea");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape") {
    document.getElementById("columns").open = false;
  }
});

function read() {
  const asked = new URLSearchParams(location.search);
  return Object.fromEntries(CHOICES.map((name) => [name, asked.get(name) ?? ""]));
}

function write(choices) {
  const asked = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(choices)) {
    if (value) asked.set(name, value);
    else asked.delete(name);
  }
  const query = asked.toString().replaceAll("%2F", "/").replaceAll("%2C", ",");
  history.replaceState(null, "", location.pathname + (query ? `?${query}` : "") + location.hash);
}

function choicesOf({ tools, table }, target) {
  if (target.name !== "column") {
    return { [target.name]: target.type === "checkbox" ? (target.checked ? "1" : "") : target.value };
  }
  const columns = [...tools.querySelectorAll("[name=column]:checked")].map((box) => box.value).sort();
  return { columns: columns.join() === usualOf(table).join() ? "" : columns.join() || "none" };
}

function usualOf(table) {
  return table.dataset.usual.split(",").filter((key) => key !== "rank" && key !== "contestant");
}

function fill({ tools, table, hasAll }, choices) {
  for (const name of ["q", "task", "flat", "ranked", "seeds"]) {
    const field = tools.elements[name];
    if (!field) continue;
    if (field.type === "checkbox") field.checked = Boolean(choices[name]);
    else if (field.value !== choices[name]) field.value = choices[name];
  }
  if (!hasAll) return;
  const chosen = new Set(choices.columns ? choices.columns.split(",") : usualOf(table));
  for (const box of tools.querySelectorAll("[name=column]")) box.checked = chosen.has(box.value);
}

function show(view, choices) {
  showTasks(view, choices);
  if (view.hasAll) showColumns(view);
  const words = choices.q.toLowerCase().split(/\s+/).filter(Boolean);
  const conditions = words.map((word) => conditionOf(view, word));
  for (const { body, rows } of view.groups) {
    for (const row of rows) {
      row.hidden =
        (choices.task && body.dataset.task !== choices.task) ||
        (choices.ranked && row.dataset.ranked !== "1") ||
        !conditions.every((holds) => holds(row, body));
    }
  }
  sort(view, choices);
  view.table.classList.toggle("with-seeds", Boolean(choices.seeds));
  count(view);
}

function showTasks({ table }, { flat }) {
  for (const cell of table.querySelectorAll(".task-column")) cell.hidden = !flat;
}

function showColumns({ tools, heads, groups }) {
  for (const box of tools.querySelectorAll("[name=column]")) {
    const place = heads.findIndex((head) => head.dataset.column === box.value);
    if (place < 0 || heads[place].hidden === !box.checked) continue;
    heads[place].hidden = !box.checked;
    for (const { rows } of groups) for (const row of rows) row.cells[place].hidden = !box.checked;
  }
  const seen = heads.filter((head) => !head.hidden).length;
  for (const { head } of groups) head.cells[0].colSpan = seen;
}

// A word is looked for in a row's names and notes; `accuracy>90` or `parameters<=100k` asks for a number as it is shown.
function conditionOf({ heads }, word) {
  const asked = word.match(/^([^<>=]+)(<=|>=|<|>|=)(-?[\d.]+(?:e-?\d+)?)([kmg%]?)$/);
  const place = asked ? placeOf(heads, asked[1]) : -1;
  if (place < 0) {
    return (row, body) => `${body.dataset.task} ${textOf(row)}`.toLowerCase().includes(word);
  }
  const isShare = heads[place].querySelector(".unit")?.textContent.trim() === "%" || heads[place].textContent.includes("points");
  const wanted = (Number(asked[3]) * (MULTIPLES[asked[4]] ?? 1)) / (isShare ? 100 : 1);
  return (row) => {
    const value = valueOf(row.cells[place]);
    if (value === null) return false;
    return { "<": value < wanted, ">": value > wanted, "<=": value <= wanted, ">=": value >= wanted, "=": value === wanted }[asked[2]];
  };
}

function placeOf(heads, name) {
  const names = heads.map((head) => (head.dataset.name ?? "").toLowerCase());
  const whole = names.indexOf(name);
  return whole >= 0 ? whole : names.findIndex((one) => one && one.startsWith(name));
}

function textOf(row) {
  const notes = [...row.querySelectorAll(".marks a")].map((note) => note.title).join(" ");
  return `${row.querySelector(".name").textContent} ${notes}`;
}

function valueOf(cell) {
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

function sort(view, choices) {
  const isDown = choices.sort.startsWith("-");
  const key = choices.sort.replace(/^-/, "");
  const place = key ? view.heads.findIndex((head) => head.dataset.key === key) : -1;
  for (const head of view.heads) {
    head.removeAttribute("aria-sort");
  }
  if (place >= 0) view.heads[place].setAttribute("aria-sort", isDown ? "descending" : "ascending");
  const all = view.groups.flatMap(({ rows }) => rows);
  for (const { body, head, rows } of view.groups) {
    const isFirst = body === view.groups[0].body;
    const mine = choices.flat ? (isFirst ? all : []) : rows;
    head.hidden = Boolean(choices.flat) || !rows.some((row) => !row.hidden);
    body.replaceChildren(head, ...(place >= 0 ? sorted(mine, place, isDown) : mine));
  }
}

// Rows without a value stay last whichever way; equal ones keep the board's order.
function sorted(rows, place, isDown) {
  const sign = isDown ? -1 : 1;
  const compare = (first, second) => {
    const [one, other] = [valueOf(first.cells[place]), valueOf(second.cells[place])];
    if (one === null && other === null) {
      const texts = [first, second].map((row) => row.cells[place].textContent.trim());
      const isNothing = texts.map((text) => text === "–" || text === "");
      if (isNothing[0] !== isNothing[1]) return isNothing[0] ? 1 : -1;
      return sign * texts[0].localeCompare(texts[1], "en", { numeric: true });
    }
    if (one === null) return 1;
    if (other === null) return -1;
    return sign * (one - other);
  };
  return [...rows].sort(compare);
}

// First the better end, then the other, then the board's own order again.
function nextSort(head, now) {
  const key = head.dataset.key;
  const ways = head.dataset.direction === "higher" ? [`-${key}`, key] : [key, `-${key}`];
  const place = ways.indexOf(now);
  return place < 0 ? ways[0] : place === 0 ? ways[1] : "";
}

function count(view) {
  const rows = view.groups.flatMap(({ rows }) => rows);
  const seen = rows.filter((row) => !row.hidden).length;
  document.getElementById("count").value = seen === rows.length ? "" : `${seen} of ${rows.length} rows`;
  const bar = document.querySelector(".chosen");
  if (!bar) return;
  const chosen = new Set([...view.table.querySelectorAll("[name=with]:checked")].map((box) => box.value));
  bar.hidden = chosen.size < 2;
  bar.querySelector("span").textContent = [...chosen].join(", ");
}
