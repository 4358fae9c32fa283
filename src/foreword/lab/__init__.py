"""Experiments: benchmark, recipes, demo, and the methods that prompts are compared with."""
