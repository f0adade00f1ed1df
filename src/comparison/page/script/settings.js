// How the result depends on the settings, what each of them explains, and what it costs in time.

function prepareSettings() {
  drawers.push(drawSettings, drawMatters, drawTime);
}

// The values of a setting in their order, as words.
const valuesOf = (place) => inOrder(data.configurations.map(({ settings }) => settings[place]));

function drawSettings() {
  const values = data.settings.map((_, place) => valuesOf(place));
  const grid = values.length === 2 && values[0].length * values[1].length <= 2 * data.configurations.length;
  const note = byId("settings-note");
  if (values.length === 0) {
    note.textContent = "All runs have the same settings.";
    byId("settings-chart").hidden = true;
  } else if (values.length === 1) {
    drawOne(values[0]);
    note.textContent = "Points: means. Lines: 95% intervals.";
  } else if (grid) {
    drawGrid(values);
    note.textContent = `Mean ${data.metric} of each pair of settings. The stronger the colour, the better.`;
  } else {
    drawParallel(values);
    note.textContent =
      "Each line is a configuration, from setting to setting to its mean. Strong lines are better, and lie above the others at each value.";
  }
}

function drawOne(values) {
  const look = theme();
  const shown = data.configurations.filter(({ label }) => isVisible(label));
  const half = (from, to) => (from === null || to === null ? 0 : to - from);
  draw(
    "settings-chart",
    [
      {
        x: shown.map(({ settings }) => plain(settings[0])),
        y: shown.map(({ mean }) => mean),
        error_y: {
          type: "data",
          symmetric: false,
          array: shown.map(({ mean, high }) => half(mean, high)),
          arrayminus: shown.map(({ mean, low }) => half(low, mean)),
          color: look.muted,
        },
        customdata: shown.map(({ label }) => [label]),
        text: shown.map((one) => plain(describe(one))),
        mode: "markers",
        marker: {
          size: shown.map(({ label }) => (label === selection.configuration ? 17 : 10)),
          color: shown.map(({ label }) => markedColour(label, look)),
          symbol: shown.map(({ label }) => lookOf(label, look).symbol),
          opacity: shown.map(({ label }) => strength(label)),
        },
        hovertemplate: "%{text}<br>%{y:.4f}<extra></extra>",
      },
    ],
    {
      xaxis: {
        title: { text: plain(data.settings[0]) },
        type: "category",
        categoryorder: "array",
        categoryarray: values.map(plain),
      },
      yaxis: { title: { text: plain(data.metric) } },
    },
  );
}

function drawGrid([rows, columns]) {
  const look = theme();
  const empty = () => rows.map(() => columns.map(() => null));
  const [z, text, customdata] = [empty(), empty(), empty()];
  const [shapes, annotations] = [[], []];
  const shown = data.configurations.filter(({ label }) => isVisible(label));
  const [low, high] = resultRange(shown.map(({ mean }) => mean));
  const ends = data.largerIsBetter ? [look.poor, look.good] : [look.good, look.poor];
  for (const configuration of shown) {
    const row = rows.indexOf(configuration.settings[0]);
    const column = columns.indexOf(configuration.settings[1]);
    const { label, mean } = configuration;
    const share = Math.min(Math.max((mean - low) / (high - low), 0), 1);
    z[row][column] = mean;
    text[row][column] = `${plain(label)}<br>${mean === null ? "none finished" : figure(mean)}`;
    annotations.push({
      x: column,
      y: row,
      text: text[row][column],
      showarrow: false,
      font: { size: 11, color: mean === null ? look.muted : readableOn(mixture(...ends, share)) },
    });
    customdata[row][column] = [configuration.label];
    if (configuration.label === selection.configuration) {
      const [x0, x1, y0, y1] = [column - 0.48, column + 0.48, row - 0.47, row + 0.47];
      shapes.push({ type: "rect", x0, x1, y0, y1, line: { color: look.bad, width: 4 } });
    }
  }
  byId("settings-chart").style.minWidth = `${150 + 66 * columns.length}px`;
  byId("settings-chart").style.maxWidth = `${200 + 130 * columns.length}px`;
  const ticks = (values) => ({
    tickvals: values.map((_, i) => i),
    ticktext: values.map(plain),
    showgrid: false,
  });
  draw(
    "settings-chart",
    [
      {
        type: "heatmap",
        z,
        text,
        customdata,
        hovertemplate: "%{text}<extra></extra>",
        zmin: low,
        zmax: high,
        colorscale: [
          [0, ends[0]],
          [1, ends[1]],
        ],
        xgap: 3,
        ygap: 3,
        hoverongaps: false,
        colorbar: { thickness: 10, outlinewidth: 0, tickformat: ".3~g" },
      },
    ],
    {
      shapes,
      annotations,
      height: Math.max(240, 110 + 56 * rows.length),
      xaxis: { title: { text: plain(data.settings[1]) }, ...ticks(columns) },
      yaxis: { title: { text: plain(data.settings[0]) }, ...ticks(rows), autorange: "reversed" },
    },
  );
}

// Axes side by side. A setting with many numbers has a scale; others have their values in equal
// distances.
function drawParallel(values) {
  const look = theme();
  const axes = values.map((own, place) => settingAxis(own, place));
  axes.push(resultAxis());
  spread(axes);
  const shown = data.configurations.filter(({ label, mean }) => isVisible(label) && mean !== null);
  const [low, high] = resultRange(shown.map(({ mean }) => mean));
  const goodness = ({ mean }) => {
    const share = Math.min(Math.max((mean - low) / (high - low), 0), 1);
    return data.largerIsBetter ? share : 1 - share;
  };
  const STEPS = 8; // one trace for each step of colour
  const traces = [];
  for (let step = 0; step < STEPS; step++) {
    const own = shown.filter((one) => Math.min(Math.floor(STEPS * goodness(one)), STEPS - 1) === step);
    const share = step / (STEPS - 1);
    const dimmed = selection.configuration === null ? 1 : 0.3;
    traces.push(lines(own, axes, mixture(look.poor, look.good, share), 1 + 1.5 * share, dimmed));
  }
  const picked = shown.filter(({ label }) => label === selection.configuration);
  traces.push(lines(picked, axes, look.bad, 4, 1));
  const annotations = axes.flatMap((axis, x) =>
    axis.ticks.map(([y, text]) => ({
      x,
      y,
      text: plain(text),
      showarrow: false,
      xanchor: "left",
      xshift: 4,
      bgcolor: look.ground,
      opacity: 0.9,
      font: { size: 11, color: look.ink },
    })),
  );
  byId("settings-chart").style.minWidth = `${axes.length * 92}px`;
  draw("settings-chart", traces, {
    height: 400,
    annotations,
    xaxis: {
      tickvals: axes.map((_, x) => x),
      ticktext: axes.map(({ title }) => plain(title)),
      side: "top",
      range: [-0.1, axes.length - 0.4],
      gridcolor: look.muted,
      fixedrange: true,
    },
    yaxis: { visible: false, range: [-0.1, 1.1], fixedrange: true },
  });
}

// Lines through one value would cover each other. Around it they lie in the order of their means,
// the better ones above.
function spread(axes) {
  const ranked = data.configurations.filter(({ mean }) => mean !== null);
  const order = new Map(
    ranked.map(({ label }, rank) => [label, ranked.length < 2 ? 0 : 0.5 - rank / (ranked.length - 1)]),
  );
  for (const axis of axes.slice(0, -1)) {
    const middle = axis.place;
    const width = Math.min(0.14, 0.45 / Math.max(1, axis.values - 1));
    axis.place = (configuration) =>
      middle(configuration) + width * (order.get(configuration.label) ?? 0);
  }
}

function settingAxis(values, place) {
  const title = data.settings[place];
  const numbers = values.map(Number);
  const scaled = values.length > 8 && numbers.every(Number.isFinite);
  if (!scaled) {
    const at = (i) => (values.length === 1 ? 0.5 : i / (values.length - 1));
    const every = Math.ceil(values.length / 12);
    return {
      title,
      values: values.length,
      place: ({ settings }) => at(values.indexOf(settings[place])),
      ticks: values.map((value, i) => [at(i), value]).filter((_, i) => i % every === 0),
    };
  }
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const logarithmic = low > 0 && high / low > 20;
  const scale = logarithmic ? Math.log10 : (value) => value;
  const at = (value) => (scale(value) - scale(low)) / (scale(high) - scale(low));
  const inverse = (share) => scale(low) + share * (scale(high) - scale(low));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const value = logarithmic ? 10 ** inverse(share) : inverse(share);
    return [share, String(Number(value.toPrecision(2)))];
  });
  return { title, values: 100, place: ({ settings }) => at(Number(settings[place])), ticks };
}

function resultAxis() {
  const [low, high] = resultRange(data.configurations.map(({ mean }) => mean));
  const at = (value) => Math.min(Math.max((value - low) / (high - low), 0), 1);
  const means = known(data.configurations.map(({ mean }) => mean));
  const mark = (share) => {
    if (share === 0 && means.some((mean) => mean < low)) return "≤ ";
    return share === 1 && means.some((mean) => mean > high) ? "≥ " : "";
  };
  return {
    title: data.metric,
    place: ({ mean }) => at(mean),
    ticks: [0, 0.5, 1].map((share) => [share, mark(share) + figure(low + share * (high - low))]),
  };
}

function lines(configurations, axes, colour, width, opacity) {
  const trace = { x: [], y: [], customdata: [], text: [] };
  for (const configuration of configurations) {
    axes.forEach((axis, x) => {
      trace.x.push(x);
      trace.y.push(axis.place(configuration));
      trace.customdata.push([configuration.label]);
      trace.text.push(plain(`${describe(configuration)}: ${figure(configuration.mean)}`));
    });
    trace.x.push(null);
    trace.y.push(null);
    trace.customdata.push(null);
    trace.text.push("");
  }
  return {
    ...trace,
    mode: "lines",
    line: { color: colour, width },
    opacity,
    hovertemplate: "%{text}<extra></extra>",
  };
}

function drawMatters() {
  const look = theme();
  const effects = data.importance.filter(({ share }) => share !== null);
  if (!effects.length) {
    byId("matters-note").textContent = "There are too few runs, or too few seeds, to divide the variance.";
    return;
  }
  const shown = effects.sort((a, b) => b.share - a.share).slice(0, 12).reverse();
  draw(
    "matters-chart",
    [
      {
        type: "bar",
        orientation: "h",
        y: shown.map(({ effect }) => plain(effect)),
        x: shown.map(({ share }) => 100 * Math.max(share, 0)),
        text: shown.map(({ share }) => ` ${percent(Math.max(share, 0))}`),
        customdata: shown.map(({ low, high }) => `${percent(low)} to ${percent(high)}`),
        textposition: "outside",
        cliponaxis: false,
        marker: { color: shown.map((one) => (one.rest ? look.faint : look.good)) },
        hovertemplate: "%{y}: %{x:.1f}%<br>95% interval %{customdata}<extra></extra>",
      },
    ],
    {
      height: 90 + 34 * shown.length,
      margin: { l: 8, r: 44, t: 8, b: 8 },
      bargap: 0.35,
      xaxis: { title: { text: "share of the variance, %" }, rangemode: "tozero" },
      yaxis: { type: "category", showgrid: false },
    },
  );
}

function drawTime() {
  const look = theme();
  const shown = data.front.filter(
    ({ configuration, seconds, value }) => isVisible(configuration) && seconds !== null && value !== null,
  );
  const front = shown.filter((one) => one.on_front).sort((a, b) => a.seconds - b.seconds);
  const seconds = shown.map((one) => one.seconds);
  const wide = Math.max(...seconds) / Math.min(...seconds) > 20;
  const settings = new Map(data.configurations.map((one) => [one.label, describe(one)]));
  const [low, high] = resultRange(shown.map((one) => one.value));
  const space = 0.06 * (high - low);
  const outside = shown.filter(({ value }) => value < low || value > high).length;
  byId("time-outside").textContent = outside
    ? `${outside} with a worse result are outside; double-click to see all.`
    : "";
  draw(
    "time-chart",
    [
      {
        x: front.map((one) => one.seconds),
        y: front.map((one) => one.value),
        mode: "lines",
        line: { color: look.muted, width: 1.5, shape: "hv" },
        hoverinfo: "skip",
      },
      {
        x: seconds,
        y: shown.map((one) => one.value),
        customdata: shown.map((one) => [one.configuration]),
        text: shown.map((one) => plain(settings.get(one.configuration))),
        mode: "markers",
        marker: {
          size: shown.map((one) => (one.configuration === selection.configuration ? 18 : 10)),
          color: shown.map(({ configuration }) => markedColour(configuration, look)),
          symbol: shown.map((one) => lookOf(one.configuration, look).symbol),
          opacity: shown.map((one) => strength(one.configuration)),
        },
        hovertemplate: "%{text}<br>%{x:.3~g} s: %{y:.4f}<extra></extra>",
      },
    ],
    {
      xaxis: { title: { text: "seconds" }, type: wide ? "log" : "linear", dtick: wide ? "D2" : undefined },
      yaxis: { title: { text: plain(data.metric) }, range: [low - space, high + space] },
    },
  );
}
