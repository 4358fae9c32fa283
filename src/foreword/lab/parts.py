"""The parts of a benchmark, which can be run alone; light, for the command line."""

PARTS = ("primary", "far", "ceilings", "rivals", "baselines", "curve", "few-shot", "calibration")
"""In the order in which they run."""
