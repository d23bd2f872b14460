"""The report of a sweep: one page without anything beside it, and its plots as files."""

from fastprune.sweep.report.page import write_report

__all__ = ["write_report"]
