"""How good a run is, and whether it is better than another."""
