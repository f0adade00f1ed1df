"""Simulates sweeps to see how often a comparison is wrong, and how often it finds what is there."""
