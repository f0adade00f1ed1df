// The look that all charts share.

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "6px,2px,2px,2px"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down"];
const COLOURED = DASHES.length;

let data; // what payload.py collected
let rankOf; // from a configuration's label to its place, the best is 0
const drawers = []; // functions that draw a chart anew

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: colour("ink"),
    muted: colour("muted"),
    faint: colour("faint"),
    line: colour("line"),
    ground: colour("ground"),
    good: colour("good"),
    poor: colour("poor"),
    bad: colour("bad"),
    series: DASHES.map((_, place) => colour(`s${place}`)),
  };
}

// How a configuration looks in every chart: the best ones have a colour, a dash and a symbol.
function lookOf(label, look) {
  const rank = rankOf.get(label);
  if (rank < COLOURED) {
    return { colour: look.series[rank], dash: DASHES[rank], symbol: SYMBOLS[rank] };
  }
  return { colour: look.faint, dash: "solid", symbol: "circle-open" };
}

// The colour of a point; one that is highlighted never has the grey of the others.
function markedColour(label, look) {
  const grey = rankOf.get(label) >= COLOURED;
  return grey && label === selection.configuration ? look.ink : lookOf(label, look).colour;
}

// How strongly a configuration shows while another one is highlighted.
const strength = (label) =>
  selection.configuration === null || selection.configuration === label ? 1 : 0.25;

function draw(id, traces, layout) {
  const look = theme();
  const axis = {
    gridcolor: look.line,
    linecolor: look.muted,
    zeroline: false,
    automargin: true,
    ticks: "outside",
    exponentformat: "power",
    tickcolor: look.line,
  };
  const whole = {
    height: 340,
    margin: { l: 8, r: 12, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: look.ink },
    showlegend: false,
    hovermode: "closest",
    hoverlabel: { bgcolor: look.ground, bordercolor: look.muted, font: { color: look.ink } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
  const element = byId(id);
  const first = !element.data;
  Plotly.react(element, traces, whole, {
    responsive: true,
    displayModeBar: false,
  });
  if (first) {
    element.on("plotly_click", (event) => {
      const target = event.points[0].customdata;
      if (target) pick(target[0], target[1] ?? null);
    });
  }
}

function redraw() {
  for (const drawer of drawers) drawer();
}

// The words under which a configuration stands in a chart: C1 lr=0.1 model=relu2.
function describe(configuration) {
  const settings = data.settings.map((name, i) => `${name}=${configuration.settings[i]}`);
  return [configuration.label, ...settings].join(" ");
}

function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value === 0 || (size >= 1e-3 && size < 1e4) ? value.toFixed(4) : value.toPrecision(3);
}

// The red, green and blue of a colour such as #0072B2.
const partsOf = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

// Return the colour that stands at a share of the way between two others.
function mixture(from, to, share) {
  const [start, end] = [partsOf(from), partsOf(to)];
  const mixed = start.map((part, i) => Math.round(part + share * (end[i] - part)));
  return `#${mixed.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

// Return black or white, whichever has the larger contrast with a colour (WCAG 2.2).
function readableOn(colour) {
  const [red, green, blue] = partsOf(colour).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

// The ends of a scale for results. The poor side ends where it would squeeze the better half into
// less than a third of the scale.
function resultRange(values) {
  const sorted = known(values).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const middle = sorted[Math.floor((sorted.length - 1) / 2)];
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  if (data.largerIsBetter && high > middle) low = Math.max(low, middle - 2 * (high - middle));
  if (!data.largerIsBetter && middle > low) high = Math.min(high, middle + 2 * (middle - low));
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}
