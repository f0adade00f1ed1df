// Loss and accuracy of all runs, with the mean and the band of each of the best configurations.

let memberOf; // from a configuration's label to its runs that have a curve

function prepareCurves() {
  memberOf = new Map(data.configurations.map(({ label }) => [label, []]));
  for (const run of Object.keys(data.curves)) {
    memberOf.get(data.runs[run].configuration)?.push(Number(run));
  }
  for (const input of document.querySelectorAll("#curves input")) {
    input.addEventListener("change", drawCurves);
  }
  const look = byId("legend");
  for (const configuration of data.configurations.slice(0, COLOURED)) {
    const swatch = document
      .querySelector(`#leaderboard .swatch.s${rankOf.get(configuration.label)}`)
      .cloneNode(true);
    const entry = make("button", { type: "button", "aria-pressed": "false" }, swatch, describe(configuration));
    entry.dataset.configuration = configuration.label;
    entry.addEventListener("click", () => pick(configuration.label));
    look.append(entry);
  }
  if (data.configurations.length > COLOURED) {
    look.append(make("span", { class: "rest" }, "grey: the other configurations"));
  }
  listeners.push(markLegend);
  drawers.push(drawCurves);
}

function markLegend() {
  for (const entry of byId("legend").querySelectorAll("button")) {
    const own = entry.dataset.configuration === selection.configuration;
    entry.setAttribute("aria-pressed", String(own));
    entry.hidden = !isVisible(entry.dataset.configuration);
  }
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

function drawCurves() {
  const [set, over] = [chosen("set"), chosen("over")];
  drawMetric("loss-chart", `${set}/loss`, over, chosen("loss-axis"));
  drawMetric("accuracy-chart", `${set}/accuracy`, over, "linear");
  const notes = [
    "Thick: the mean of a configuration's finished runs, as far as all of them go.",
    "Band: from the lowest to the highest of them.",
    "Thin: single runs; × is the last epoch of one that did not finish.",
    "Drag to zoom, double-click to see all.",
  ];
  if (data.every > 1) notes.push(`Of every ${data.every} epochs one is drawn.`);
  byId("curves-note").textContent = notes.join(" ");
}

function drawMetric(id, metric, over, scale) {
  const look = theme();
  const labels = data.configurations.map(({ label }) => label).filter(isVisible);
  const coloured = labels.filter((label) => rankOf.get(label) < COLOURED);
  const picked = selection.configuration;
  const traces = [];
  if (byId("single").checked) {
    const others = labels.filter((label) => rankOf.get(label) >= COLOURED && label !== picked);
    traces.push(singles(others, metric, over, look.faint, 0.6 * (picked === null ? 1 : 0.5)));
    for (const label of coloured) {
      traces.push(singles([label], metric, over, lookOf(label, look).colour, 0.4 * strength(label)));
    }
  }
  const means = coloured.filter((label) => label !== picked).reverse();
  for (const label of means) traces.push(...meanAndBand(label, metric, over, look));
  if (picked !== null && isVisible(picked)) traces.push(...highlighted(metric, over, look));
  traces.push(ends(labels, metric, over, look));
  const [xs, ys] = extent(labels, metric, over);
  draw(id, traces, {
    xaxis: { title: { text: over === "epoch" ? "epoch" : over }, ...axisOf(xs, chosen("over-axis")) },
    yaxis: { title: { text: plain(metric) }, ...axisOf(ys, scale) },
  });
}

// One trace for the curves of many runs, with gaps between them.
function singles(labels, metric, over, colour, opacity) {
  return {
    ...pointsOf(labels, metric, over),
    mode: "lines",
    line: { color: colour, width: 1 },
    opacity,
    connectgaps: false,
    hovertemplate: "%{text}<br>%{x}: %{y:.4~g}<extra></extra>",
  };
}

// The points of many runs. They are kept, because Plotly redraws the same ones much faster.
const keptPoints = new Map();

function pointsOf(labels, metric, over) {
  const key = [metric, over, ...labels].join("\n");
  if (!keptPoints.has(key)) {
    if (keptPoints.size > 200) keptPoints.clear();
    keptPoints.set(key, collectPoints(labels, metric, over));
  }
  return keptPoints.get(key);
}

function collectPoints(labels, metric, over) {
  const trace = { x: [], y: [], customdata: [], text: [] };
  for (const label of labels) {
    for (const run of memberOf.get(label)) {
      const curve = data.curves[run];
      const name = plain(`${data.runs[run].name} (${label}, seed ${data.runs[run].seed})`);
      const target = [label, run];
      for (let i = 0; i < curve[over].length; i++) {
        trace.x.push(curve[over][i]);
        trace.y.push(curve[metric][i]);
        trace.customdata.push(target);
        trace.text.push(name);
      }
      trace.x.push(null);
      trace.y.push(null);
      trace.customdata.push(null);
      trace.text.push("");
    }
  }
  return trace;
}

// The mean over the finished runs at each epoch that all of them reached, and their range.
function meanOf(label, metric, over) {
  const finished = memberOf.get(label).filter((run) => data.runs[run].status === "finished");
  const epochs = new Map();
  for (const run of finished) {
    const curve = data.curves[run];
    curve.epoch.forEach((epoch, i) => {
      if (curve[metric][i] === null || curve[over][i] === null) return;
      if (!epochs.has(epoch)) epochs.set(epoch, { x: [], y: [] });
      epochs.get(epoch).x.push(curve[over][i]);
      epochs.get(epoch).y.push(curve[metric][i]);
    });
  }
  const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return [...epochs.entries()]
    .filter(([, point]) => point.y.length === finished.length)
    .sort(([a], [b]) => a - b)
    .map(([epoch, { x, y }]) => ({
      epoch,
      x: average(x),
      mean: average(y),
      low: Math.min(...y),
      high: Math.max(...y),
      runs: y.length,
    }));
}

function meanAndBand(label, metric, over, look, width = 2.2) {
  const { colour, dash, symbol } = lookOf(label, look);
  const points = meanOf(label, metric, over);
  const x = points.map((point) => point.x);
  const opacity = strength(label);
  const traces = [];
  if (points.length && points[0].runs > 1) {
    traces.push({
      x: [...x, ...x.slice().reverse()],
      y: [...points.map((point) => point.high), ...points.map((point) => point.low).reverse()],
      fill: "toself",
      fillcolor: colour,
      opacity: 0.18 * opacity,
      mode: "lines",
      line: { width: 0 },
      hoverinfo: "skip",
    });
  }
  traces.push({
    name: label,
    x,
    y: points.map((point) => point.mean),
    customdata: points.map(() => [label]),
    mode: "lines+markers",
    line: { color: colour, width, dash },
    marker: { color: colour, symbol, size: 7, maxdisplayed: 8 },
    opacity,
    hovertemplate: `${plain(label)}, mean of ${points[0]?.runs ?? 0}<br>%{x}: %{y:.4~g}<extra></extra>`,
  });
  return traces;
}

function highlighted(metric, over, look) {
  const { configuration, run } = selection;
  const coloured = rankOf.get(configuration) < COLOURED;
  const ours = coloured ? look : { ...look, faint: look.ink };
  const traces = meanAndBand(configuration, metric, over, ours, run === null ? 4 : 2);
  if (run === null) {
    traces.unshift(singles([configuration], metric, over, lookOf(configuration, ours).colour, 0.7));
  } else if (data.curves[run]) {
    const one = singles([configuration], metric, over, look.ink, 1);
    const own = one.customdata.map((target) => target !== null && target[1] === run);
    const keep = (values) => values.filter((_, i) => own[i]);
    traces.push({
      ...one,
      x: keep(one.x),
      y: keep(one.y),
      customdata: keep(one.customdata),
      text: keep(one.text),
      line: { color: look.ink, width: 3.5 },
    });
  }
  return traces;
}

// The last known points of runs that did not finish.
function ends(labels, metric, over, look) {
  const trace = { x: [], y: [], customdata: [], text: [] };
  for (const label of labels) {
    for (const run of memberOf.get(label)) {
      if (data.runs[run].status === "finished") continue;
      const curve = data.curves[run];
      const last = curve[metric].findLastIndex((value) => value !== null);
      if (last < 0) continue;
      trace.x.push(curve[over][last]);
      trace.y.push(curve[metric][last]);
      trace.customdata.push([label, run]);
      trace.text.push(plain(`${data.runs[run].name}: ${data.runs[run].status}`));
    }
  }
  return {
    ...trace,
    mode: "markers",
    marker: { symbol: "x-thin", size: 9, line: { width: 2, color: look.bad } },
    hovertemplate: "%{text}<br>%{x}: %{y:.4~g}<extra></extra>",
  };
}

// The ends of both axes. Runs that did not finish would stretch them, so they count only if there
// are no others. So would the losses of bad configurations: those of the first 20 count.
function extent(labels, metric, over) {
  const runsOf = (some) => {
    const all = some.flatMap((label) => memberOf.get(label));
    const finished = all.filter((run) => data.runs[run].status === "finished");
    return finished.length ? finished : all;
  };
  const better = labels.slice(0, 20);
  const ends = (name) => {
    let [low, high, positive] = [Infinity, -Infinity, Infinity];
    for (const run of runsOf(name.endsWith("loss") ? better : labels)) {
      for (const value of data.curves[run][name]) {
        if (value === null) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
        if (value > 0) positive = Math.min(positive, value);
      }
    }
    return { low, high, positive };
  };
  return [ends(over), ends(metric)];
}

function axisOf({ low, high, positive }, scale) {
  if (scale === "log" && positive < Infinity) {
    const [from, to] = [Math.log10(positive), Math.log10(high)];
    const space = 0.04 * (to - from || 1);
    const dtick = to - from > 2 ? 1 : "D2";
    return { type: "log", range: [from - space, to + space], dtick, tickformat: ".2~g" };
  }
  if (!(low <= high)) return { type: "linear" };
  const space = 0.04 * (high - low || 1);
  return { type: "linear", range: [low - space, high + space] };
}
