"""Numbers as the page writes them; "-" where there is none."""

from __future__ import annotations

GIB = 2**30
NONE = "-"
SPACE = "\u00a0"
"""Keeps a number and its unit on one line."""


def milliseconds(value: float | None) -> str:
    """Two decimals below ten seconds, none above."""
    if value is None:
        return NONE
    return f"{value:,.2f}" if value < 10_000 else f"{value:,.0f}"


def duration(value_ms: float | None) -> str:
    """Three digits or so, with the unit that suits the size."""
    if value_ms is None:
        return NONE
    seconds = value_ms >= 1000
    return f"{value_ms / 1000:,.3g}{SPACE}s" if seconds else f"{value_ms:,.3g}{SPACE}ms"


def real(value: float | None, decimals: int = 2) -> str:
    """Decimals for what is 1 and more, three digits for what is less."""
    if value is None:
        return NONE
    return f"{value:,.{decimals}f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def whole(value: float | None) -> str:
    """No decimals from a thousand on."""
    return real(value, 0 if value is not None and value >= 1000 else 2)


def percent(share: float | None) -> str:
    """One decimal."""
    return NONE if share is None else f"{share:.1%}"


def count(value: int) -> str:
    """With commas."""
    return f"{value:,}"


def gib(size_bytes: float) -> str:
    """Binary gigabytes."""
    return f"{size_bytes / GIB:,.2f} GiB"


def difference(value: float | None, base: float | None) -> str:
    """``value`` against ``base`` in percent, with its sign."""
    if value is None or not base:
        return ""
    change = value / base - 1
    return "=" if abs(change) < 5e-4 else f"{change:+.1%}"
