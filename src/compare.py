"""Compares kept runs: which configuration is better, by how much, how surely and why."""

from src.comparison.comparison import Comparison

__all__ = ["Comparison"]
