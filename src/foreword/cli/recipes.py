"""`foreword recipe`: the original system's recipes."""

from __future__ import annotations

from foreword.cli.shared import Add, Options


def add(command: Add) -> None:
    """The grammar of the command."""
    command("recipe", recipe, "run a recipe of the original system", "foreword recipe dpr-multitask --miniature")


def recipe(options: Options) -> None:
    """Run a recipe."""
