"""The self-contained page: templates, style, script and chart library put into one file.

:func:`render_page` serves any page of the simulator, not only that of results: give it tabs of
charts, tables and texts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.report.charts import Chart

EXTRA = "'llm-inference-simulator[report]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells; the first cell of a row names it. Numbers come as text, aligned right."""

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1
    """Columns from the left that hold words; the others hold numbers."""
    preformatted: bool = False
    """Cells keep their line breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A titled paragraph, or (``folded``) preformatted text that opens on a click.

    ``unfolded`` text is preformatted too, and open from the start.
    """

    title: str
    body: str
    folded: bool = False
    unfolded: bool = False


Item = Chart | Table | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """One view of the page."""

    identity: str
    title: str
    items: Sequence[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A key figure: its name, its value, and what to make of it."""

    name: str
    value: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The top of the page: a sentence and the figures behind it, of one subject."""

    subject: str = ""
    sentence: str
    figures: Sequence[Figure] = field(default_factory=tuple)


def require_jinja() -> Any:
    """Import Jinja2 or say which extra brings it."""
    try:
        import jinja2
    except ImportError:
        raise ConfigError(
            f"a report needs jinja2, which is not installed: pip install {EXTRA}"
        ) from None
    return jinja2


def render_page(
    *,
    title: str,
    answers: Sequence[Answer],
    warnings: Sequence[str] = (),
    tabs: Sequence[Tab],
    footer: str = "",
) -> str:
    """Render a page that needs nothing outside itself.

    All texts are escaped: names that come from files stay text. Raises :class:`ConfigError` where
    Jinja2 is not installed.
    """
    template = _environment().get_template("page.html.j2")
    charts = [item.to_dict() for tab in tabs for item in tab.items if isinstance(item, Chart)]
    scripts = [_asset("echarts.common.min.js"), _asset("page.js")]
    page: str = template.render(
        title=title,
        answers=answers,
        warnings=warnings,
        tabs=[(tab, [(_kind(item), item) for item in tab.items]) for tab in tabs],
        footer=footer,
        charts=charts,
        style=_asset("page.css"),
        scripts=scripts,
        policy=_policy(scripts),
    )
    return page


def _kind(item: Item) -> str:
    return type(item).__name__.casefold()


@cache
def _environment() -> Any:
    jinja2 = require_jinja()
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy: these scripts and no others, and no request to anywhere."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
