"""Secrets do not reach a record: the cluster's and the code's own words are masked before anything keeps them."""

from __future__ import annotations

import os
import re

from infra.tracking.diffs import masked

_PATTERNS = (
    # user:password@ in an address; the user stays, it is often what is wrong
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s@]+@", re.IGNORECASE), r"\1:***@"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?"), "***"),
    (
        re.compile(
            r"(\b[\w.-]*(?:passw(?:or)?d|passwd|pwd|secret|token|api[_-]?key|credential|auth[_-]?string)[\w.-]*['\"]?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
LONGEST = 800
"""Characters of a line that are kept: of a longer one both ends, for a failed mount says at the end why."""


def clean(text: str) -> str:
    """Return ``text`` without passwords, tokens and control characters.

    Besides what looks like a secret, the values of this process's own secret-looking variables are masked.
    """
    text = _CONTROL.sub("", text)
    for pattern, stars in _PATTERNS:
        text = pattern.sub(stars, text)
    return masked(text, os.environ)


def clean_line(text: str) -> str:
    """As :func:`clean`, on one line of bounded length."""
    line = " ".join(clean(text).split())
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"
