// Two configurations side by side: what they confuse, and the samples only one of them gets right.

function preparePairs() {
  const labels = Object.keys(data.confusion);
  if (!labels.length) return;
  byId("pairs-missing").hidden = true;
  byId("pairs-content").hidden = false;
  const names = new Map(data.configurations.map((one) => [one.label, describe(one)]));
  for (const id of ["pair-a", "pair-b"]) {
    byId(id).append(...labels.map((value) => make("option", { value }, names.get(value))));
    byId(id).addEventListener("change", drawPair);
  }
  byId("pair-b").selectedIndex = Math.min(1, labels.length - 1);
  listeners.push(() => {
    const { configuration } = selection;
    if (configuration === byId("pair-a").value || !labels.includes(configuration)) return;
    byId("pair-b").value = configuration;
    drawPair();
  });
  drawPair();
}

function drawPair() {
  const [a, b] = [byId("pair-a").value, byId("pair-b").value];
  byId("confusion-title").textContent = `${a}: true class (rows) and answer (columns), all its networks`;
  byId("confusion").replaceChildren(confusionTable(a));
  const same = a === b;
  byId("difference-title").textContent = same ? "" : `${a} minus ${b}, in percent of the true class`;
  byId("difference").replaceChildren(...(same ? [] : [differenceTable(a, b)]));
  const pair = data.pairs.find(
    (one) => (one.a === a && one.b === b) || (one.a === b && one.b === a),
  );
  byId("pair-verdict").textContent = pair ? pair.verdict : "";
  drawSamples(a, b, pair);
}

const rowShares = (matrix) =>
  matrix.map((row) => {
    const total = row.reduce((sum, value) => sum + value, 0);
    return row.map((value) => (total ? value / total : 0));
  });

function confusionTable(label) {
  const matrix = data.confusion[label];
  const shares = rowShares(matrix);
  return matrixTable(matrix, (value, row, column) => ({
    text: value === 0 ? "" : String(value),
    side: row === column ? "right" : "wrong",
    strength: row === column ? 0.55 * shares[row][column] : Math.min(0.55, 0.12 + 5 * shares[row][column]),
    note: `${className(row)} taken for ${className(column)}: ${value} (${(100 * shares[row][column]).toFixed(1)}%)`,
  }));
}

function differenceTable(a, b) {
  const [first, second] = [rowShares(data.confusion[a]), rowShares(data.confusion[b])];
  const matrix = first.map((row, i) => row.map((value, j) => 100 * (value - second[i][j])));
  const largest = Math.max(...matrix.flat().map(Math.abs), 1e-9);
  return matrixTable(matrix, (value, row, column) => {
    const better = row === column ? value > 0 : value < 0;
    const shown = Math.abs(value) < 0.05 ? "" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`;
    return {
      text: shown,
      side: better ? "right" : "wrong",
      strength: 0.55 * (Math.abs(value) / largest),
      note: `${className(row)} taken for ${className(column)}: ${shown || "0"} points; ${better ? a : b} is better`,
    };
  });
}

const className = (place) => data.classes[place] ?? String(place);

function matrixTable(matrix, cellOf) {
  const head = matrix[0].map((_, column) => make("th", { scope: "col" }, className(column)));
  const body = matrix.map((row, i) => {
    const cells = row.map((value, j) => {
      const { text, side, strength, note } = cellOf(value, i, j);
      const cell = make("td", { class: side, title: note }, text);
      if (text) cell.style.setProperty("--strength", `${Math.round(100 * strength)}%`);
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row" }, className(i)), ...cells);
  });
  const corner = make("td", {}, "");
  return make(
    "table",
    { class: "matrix" },
    make("thead", {}, make("tr", {}, corner, ...head)),
    make("tbody", {}, ...body),
  );
}

function drawSamples(a, b, pair) {
  const shown = pair ? pair.samples : [];
  byId("samples-title").textContent = pair ? `Samples on which ${a} and ${b} differ` : "";
  byId("samples-note").textContent = !pair
    ? ""
    : pair.differing === 0
      ? "They are right and wrong on the same samples."
      : `${pair.differing} test samples; ${shown.length === pair.differing ? "all" : `the ${shown.length} with the largest difference`} are shown. The figures are the shares of each configuration's networks that are right.`;
  const items = shown.map(([sample, label, first, second]) => {
    const swapped = pair.a !== a;
    const [ours, theirs] = swapped ? [second, first] : [first, second];
    const name = `test sample ${sample}, a ${className(label)}`;
    const address = data.images[sample];
    const picture = address
      ? make("img", { src: address, alt: name, width: 56, height: 56 })
      : make("span", { class: "no-picture" }, `sample ${sample}`);
    const side = (who, share) =>
      make("span", { class: share >= 0.5 ? "right" : "wrong" }, `${who} ${percent(share)}`);
    return make(
      "li",
      { title: name },
      picture,
      make("strong", {}, className(label)),
      side(a, ours),
      side(b, theirs),
    );
  });
  byId("samples").replaceChildren(...items);
}
