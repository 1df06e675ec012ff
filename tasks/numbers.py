"""Numbers of any size, as logs and reports show them."""

from __future__ import annotations


def number(value: float, sign: str = "") -> str:
    """Return three decimals; for large numbers none, for very small ones three digits. ``sign`` "+" shows it always."""
    if value and abs(value) < 0.0095:
        return f"{value:{sign}.3g}"
    return f"{value:{sign},.0f}" if abs(value) >= 10_000 else f"{value:{sign}.3f}"
