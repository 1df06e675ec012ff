"""Amounts as Kubernetes writes them: ``500m`` of a processor, ``4Gi`` of memory."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

_FORM = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_FACTORS = {
    "m": Decimal("0.001"),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTP", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTP", start=1)},
}


def parse_quantity(text: str) -> Decimal:
    """Return the amount in its unit: processors, bytes or pieces.

    Raises:
        ValueError: it is none; the message is what would be right.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("write a number, with a unit if any: 2, 500m (half a processor), 512Mi or 4Gi of memory")
    return Decimal(match[1]) * _FACTORS.get(match[2] or "", Decimal(1))


def _checked(text: str) -> str:
    parse_quantity(text)
    return text


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Quantity = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_checked)]
"""A checked amount, kept as it was written; a bare number in YAML is one, too."""
