"""The comparison as one HTML file, which opens without a network."""

from src.comparison.page.page import write_page

__all__ = ["write_page"]
