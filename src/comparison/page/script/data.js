// Unpacks what the page holds compressed: the data, and Plotly's script.

async function unpacked(id) {
  if (!("DecompressionStream" in window)) {
    throw new Error("this browser is too old for the charts; any browser of 2023 or later draws them");
  }
  const letters = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// The security policy knows this script by its digest.
async function loadPlotly() {
  const element = document.createElement("script");
  element.textContent = await unpacked("packed-plotly");
  document.head.append(element);
  if (!window.Plotly) throw new Error("this browser did not run the script that draws the charts");
}

const byId = (id) => document.getElementById(id);

// Make an element with attributes and children; text stays text, whatever it holds.
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") Object.assign(element.style, value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// Plotly reads some HTML in labels. A name has none.
const plain = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// Each value once: numbers by size, words by the alphabet.
function inOrder(values) {
  const compare = (a, b) => Number(a) - Number(b) || a.localeCompare(b, "en", { numeric: true });
  return [...new Set(values)].sort(compare);
}

const known = (values) => values.filter((value) => value !== null && value !== undefined);
const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)}%`);
