"""How good a run is, and whether it is better than another. Importing this loads no torch."""

from foreword.evaluation.measures import (
    DEFAULT_MEASURES,
    Comparison,
    Evaluation,
    bootstrap_interval,
    evaluate_run,
    first_relevant_ranks,
    paired_randomization,
    parse_measures,
)

__all__ = [
    "DEFAULT_MEASURES",
    "Comparison",
    "Evaluation",
    "bootstrap_interval",
    "evaluate_run",
    "first_relevant_ranks",
    "paired_randomization",
    "parse_measures",
]
