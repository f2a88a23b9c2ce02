"""Render the page."""

from pathlib import Path

import jinja2

from tools.report.contents import Report

TEMPLATE = Path(__file__).with_name("page.html")


def render(report: Report) -> str:
    """The page as one self-contained HTML text."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report)
