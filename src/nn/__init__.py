"""The mathematics: pure functions on plain arrays, for one network or a stack of them.

Array code addresses the last two axes: ``x (..., batch, in)``, ``W (..., in, out)`` and
``b (..., 1, out)``. Without a leading axis that is one network; with one, a stack of networks.
"""
