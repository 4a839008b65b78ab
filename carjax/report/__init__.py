"""The report: one self-contained page of the photos that were chosen and why."""

from carjax.report.page import write_report

__all__ = ["write_report"]
