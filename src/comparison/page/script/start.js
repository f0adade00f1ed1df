// Brings the page to life: tables at once, charts as soon as their data are unpacked.

prepareTables();
document.querySelector(".framed").hidden = window.self === window.top;
try {
  data = JSON.parse(await unpacked("packed-data"));
  rankOf = new Map(data.configurations.map(({ label }, place) => [label, place]));
  preparePairs();
  await loadPlotly();
  prepareCurves();
  prepareSettings();
  redraw();
  listeners.push(redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.documentElement.dataset.ready = "yes";
} catch (error) {
  byId("unavailable").textContent = `The charts can't be drawn: ${error.message}`;
  byId("unavailable").hidden = false;
  document.documentElement.dataset.ready = "failed";
}
