"""Kills, starves and damages real runs for as long as one likes: ``make torture``.

Whatever happens to a run, it must be resumed to the bytes of a run that nobody disturbed.
"""
