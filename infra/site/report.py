"""A run over a site as Markdown: machine by step, and what was done, differs or failed."""

from __future__ import annotations

from collections.abc import Mapping

from infra.site.engine import Key, Outcome, State

MARKS = {
    State.FITS: "✓",
    State.CHANGED: "✓ changed",
    State.DIFFERS: "≠ differs",
    State.FAILED: "✗ failed",
    State.LEFT_OUT: "left out",
}


def site_markdown(outcomes: Mapping[Key, Outcome]) -> str:
    """Return the report; of files it names the paths, never what is in them."""
    machines = list(dict.fromkeys(machine for machine, _ in outcomes))
    names = list(dict.fromkeys(name for _, name in outcomes))
    lines = [f"| machine | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for machine in machines:
        cells = [_cell(outcomes.get((machine, name))) for name in names]
        lines.append(f"| {machine} | {' | '.join(cells)} |")
    for (machine, name), outcome in outcomes.items():
        if outcome.changes or outcome.error:
            lines += ["", f"**{machine}: {name}**", ""]
            lines += [f"- {_plain(f'{change.what} ({change.why})')}" for change in outcome.changes]
            lines += [f"- ✗ {_plain(str(problem))}" for problem in (outcome.error.problems if outcome.error else ())]
    return "\n".join(lines) + "\n"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return f"{MARKS[outcome.state]} {outcome.ended - outcome.began:.1f} s"


def _plain(text: str) -> str:
    """Return a text on one line, with nothing in it that Markdown would take for its own."""
    return " ".join(text.split()).replace("<", "&lt;").replace("`", "'").replace("|", "\\|").replace("*", "\\*")
