// What is highlighted and what the filter shows. Tables and charts listen to both.

const selection = { configuration: null, run: null };
const visible = { configurations: null }; // a set of labels; null shows all
const listeners = [];

// Highlight a configuration, or one run of it. The same choice again clears it.
function pick(configuration, run = null) {
  const again = selection.configuration === configuration && selection.run === run;
  selection.configuration = again ? null : configuration;
  selection.run = again ? null : run;
  tell("selection");
}

function release() {
  if (selection.configuration !== null) pick(selection.configuration, selection.run);
}

function showOnly(configurations) {
  visible.configurations = configurations;
  tell("visible");
}

const isVisible = (label) => visible.configurations === null || visible.configurations.has(label);

function tell(change) {
  for (const listener of listeners) listener(change);
}
