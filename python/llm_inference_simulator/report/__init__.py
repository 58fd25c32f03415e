"""Pages and traces that people look at: the HTML report of results, and the timeline of a run."""

from llm_inference_simulator.report.charts import Axis, Chart, Series
from llm_inference_simulator.report.page import (
    Answer,
    Figure,
    Tab,
    Table,
    Text,
    render_page,
    require_jinja,
)

__all__ = [
    "Answer",
    "Axis",
    "Chart",
    "Figure",
    "Series",
    "Tab",
    "Table",
    "Text",
    "render_page",
    "require_jinja",
]
