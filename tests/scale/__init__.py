"""How far a sweep scales: what finished sweeps took, and a simulation of greater ones."""
