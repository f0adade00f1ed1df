// Sorts, filters and highlights the rows of the tables.

function prepareTables() {
  for (const table of document.querySelectorAll("main table[id]")) {
    for (const button of table.querySelectorAll("button.sort")) {
      button.addEventListener("click", () => sortBy(table, button.closest("th")));
    }
    table.tBodies[0].addEventListener("click", (event) => {
      if (event.target.closest("a")) return;
      const row = event.target.closest("tr");
      pick(row.dataset.configuration, "run" in row.dataset ? Number(row.dataset.run) : null);
    });
  }
  byId("release").addEventListener("click", release);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") release();
  });
  listeners.push(markRows);
  markRows();
  prepareFilter();
}

function sortBy(table, header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const column = header.cellIndex;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compareCells(a.cells[column], b.cells[column], ascending ? 1 : -1));
  table.tBodies[0].append(...rows);
}

// Numbers before words, and missing values last in either direction.
function compareCells(a, b, direction) {
  const [first, second] = [sortKey(a), sortKey(b)];
  if (first.missing !== second.missing) return first.missing ? 1 : -1;
  if (first.number !== null && second.number !== null) {
    return direction * (first.number - second.number);
  }
  if ((first.number === null) !== (second.number === null)) return first.number === null ? 1 : -1;
  return direction * first.text.localeCompare(second.text, "en", { numeric: true });
}

function sortKey(cell) {
  const text = cell.textContent.trim();
  const number = Number(cell.dataset.value ?? (text || NaN));
  const missing = text === "–" || text === "";
  return { text, number: Number.isNaN(number) ? null : number, missing };
}

function prepareFilter() {
  const rows = [...byId("leaderboard").tBodies[0].rows];
  const choices = [];
  const apply = () => {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = choices.filter((choice) => choice.value !== "");
    const shown = rows.filter((row) => {
      const text = `${wordsOf(row)} ${row.textContent}`.toLowerCase();
      const own = settingsOf(row);
      return (
        words.every((word) => text.includes(word)) &&
        wanted.every((choice) => own[Number(choice.dataset.setting)] === choice.value)
      );
    });
    const all = shown.length === rows.length;
    byId("found").textContent = all
      ? ""
      : `${shown.length} of ${rows.length} configurations are shown on this page`;
    showOnly(all ? null : new Set(shown.map((row) => row.dataset.configuration)));
  };
  const amount = rows.length ? settingsOf(rows[0]).length : 0;
  for (let setting = 0; setting < amount; setting++) {
    const values = inOrder(rows.map((row) => settingsOf(row)[setting]));
    if (values.length > 30) continue;
    const choice = make("select", { "data-setting": setting }, make("option", { value: "" }, "all"));
    choice.append(...values.map((value) => make("option", { value }, value)));
    choice.addEventListener("change", apply);
    choices.push(choice);
    byId("choices").append(make("label", {}, titleOf(setting), " ", choice));
  }
  byId("filter").addEventListener("input", apply);
  document.querySelector(".filters").hidden = rows.length < 2;
}

const settingsOf = (row) =>
  [...row.querySelectorAll("td.setting")].map((cell) => cell.textContent.trim());

const titleOf = (setting) =>
  byId("leaderboard").tHead.rows[0].cells[setting + 2].textContent.trim();

// A configuration in words: C1 model=relu2 lr=0.1.
function wordsOf(row) {
  const settings = settingsOf(row).map((value, setting) => `${titleOf(setting)}=${value}`);
  return [row.dataset.configuration, ...settings].join(" ");
}

const nameOf = (run) =>
  document.querySelector(`#runs tr[data-run="${run}"] .pick`).textContent.trim();

function markRows() {
  const { configuration, run } = selection;
  for (const row of document.querySelectorAll("main tr[data-configuration]")) {
    row.hidden = !isVisible(row.dataset.configuration);
    const own = row.dataset.configuration === configuration;
    const picked = own && (run === null || !("run" in row.dataset) || Number(row.dataset.run) === run);
    row.classList.toggle("picked", picked);
    const exact = own && ("run" in row.dataset ? Number(row.dataset.run) === run : run === null);
    row.querySelector(".pick")?.setAttribute("aria-pressed", String(exact));
  }
  const bar = byId("picked");
  bar.hidden = configuration === null;
  if (configuration !== null) {
    const row = `#leaderboard tr[data-configuration="${CSS.escape(configuration)}"]`;
    const words =
      run === null
        ? wordsOf(document.querySelector(row))
        : `${nameOf(run)} (${configuration})`;
    bar.firstElementChild.textContent = `Highlighted: ${words}`;
  }
}
