"""Experiments: benchmark, recipes, demo, and the methods that prompts are compared with.

Importing this is light, for the command line.
"""

PARTS = ("primary", "far", "avoided", "ceilings", "rivals", "few-shot", "calibration")
"""The parts of the benchmark, which can be run alone, in the order in which they run."""
