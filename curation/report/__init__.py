"""The report: one HTML file that shows what a run kept, what it rejected, and why."""

from curation.report.page import write_report

__all__ = ["write_report"]
