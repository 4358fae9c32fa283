"""Recipes: the settings of earlier systems, readable and run by our own code.

Each is a `.toml` file here, read by `recipe.load_recipe`, shown by `describe.describe`, and run, or run on small
data made on the spot, by `run.run_recipe`.
"""

from foreword.recipes.describe import describe
from foreword.recipes.recipe import Recipe, load_recipe, recipe_names

__all__ = ["Recipe", "describe", "load_recipe", "recipe_names"]
