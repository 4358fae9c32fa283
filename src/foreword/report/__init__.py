"""What a run found, as a page to look at, as plots and as tables. Importing this loads no plotting library."""

from foreword.report.page import render, write_report
from foreword.report.plots import write_plots
from foreword.report.results import format_table, markdown_table

__all__ = ["format_table", "markdown_table", "render", "write_plots", "write_report"]
