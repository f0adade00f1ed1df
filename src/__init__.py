"""scratchgrid: which of many small neural networks is better, and why."""
