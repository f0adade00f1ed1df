"""What Hydra finds only under this name: our sweeper and our launcher."""
