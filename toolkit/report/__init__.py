"""The report: one HTML file that someone who never saw the tool can read."""

from ehdnas.report.data import ReportData
from ehdnas.report.page import render

__all__ = ["ReportData", "render"]
