"""Measures how many small faults in the code the tests find."""
