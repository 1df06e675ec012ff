"""What a run came to, as plain values: for the report, the run's artifact and the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.numbers import number

FILE = "summary.json"
ARTIFACT = "summary"
"""Key of the run's artifact that holds the same, for whoever cannot read the run's folder."""
PROGRESS = "training"
"""Key of the artifact that shows how far a training is."""
HEADLINE = ("mAP50", "mAP50-95", "precision", "recall")


@dataclass(frozen=True)
class Summary:
    """The result of one run of the main job.

    Attributes:
        recipe: the recipe file.
        trained: "ran", "fetched" or "unchanged" (see :class:`infra.repository.dvc.Outcome`).
        commit: the code's full commit hash; ``dirty`` whether the tree had changes besides.
        data: digest of the dataset; ``data_tag`` its git tag or "".
        model: the version (``forklift/3``), or "" when the tracker could not be reached.
        promoted: whether that version is now champion through this run.
        reason: the gate's sentence.
        metrics: on the test split, 0 to 1, per class as ``mAP50/forklift``.
        champion: the version judged against, or ""; ``champion_metrics`` its metrics on the same split.
        run_url: the MLflow run; ``flow_url`` the Prefect flow run.
        pictures: title to file, relative to the checkout.
        headline: the metrics that have a row.
    """

    recipe: str
    trained: str
    commit: str
    dirty: bool
    data: str
    data_tag: str
    model: str
    promoted: bool
    reason: str
    metrics: Mapping[str, float]
    champion: str
    champion_metrics: Mapping[str, float]
    run_url: str
    flow_url: str
    pictures: Mapping[str, str]
    headline: Sequence[str] = HEADLINE

    def save(self, folder: Path) -> None:
        """Write the summary into a run's folder."""
        (folder / FILE).write_text(self.to_json() + "\n", encoding="utf-8")

    def to_json(self) -> str:
        """Return the summary as text, for :meth:`from_json`."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def load(cls, folder: Path) -> Summary | None:
        """Read the summary of a run's folder; None when the run did not get that far."""
        try:
            return cls.from_json((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """Read what :meth:`to_json` made."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values | {"headline": tuple(values.get("headline", HEADLINE))})

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return headings and rows, as texts: a row a metric, on all classes, against the champion, and per class."""
        classes = sorted({name.split("/", 1)[1] for name in self.metrics if "/" in name})
        headings = ("metric", self.model or "this model", self.champion or "champion", "difference", *classes)
        rows = []
        for name in self.headline:
            new, old = self.metrics.get(name), self.champion_metrics.get(name)
            difference = "" if new is None or old is None else number(new - old, "+")
            per_class = [_number(self.metrics.get(f"{name}/{label}")) for label in classes]
            rows.append((name, _number(new), _number(old), difference, *per_class))
        return headings, rows

    def verdict(self) -> str:
        """Return one sentence on what became of the model."""
        if not self.model:
            return "The tracker did not answer: the model is kept, and registered and judged when it is back."
        if self.trained != "ran" and not self.promoted and not self.reason:
            return f"Nothing was trained: code, data and parameters are those of {self.model}."
        place = "is the new champion" if self.promoted else "was registered, the champion stays"
        return f"{self.model} {place}: {self.reason}."


def markdown(summary: Summary, pictures: Mapping[str, str]) -> str:
    """Return the report of a run. ``pictures``: title to address, as the reader of this text reaches them."""
    headings, rows = summary.table()
    code = f"`{summary.commit[:12]}`" + (" with uncommitted changes" if summary.dirty else "")
    data = f"`{summary.data}`" + (f" ({summary.data_tag})" if summary.data_tag else "")
    lines = [
        f"# {summary.model or Path(summary.recipe).stem}",
        "",
        summary.verdict(),
        "",
        f"| {' | '.join(headings)} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "| made from | |",
        "|---|---|",
        f"| code | {code} |",
        f"| data | {data} |",
        f"| recipe | `{summary.recipe}` |",
        f"| training | {summary.trained} |",
    ]
    if summary.run_url:
        lines.append(f"| MLflow run | [{summary.run_url}]({summary.run_url}) |")
    if summary.flow_url:
        lines.append(f"| Prefect run | [{summary.flow_url}]({summary.flow_url}) |")
    for title, address in pictures.items():
        lines += ["", f"## {title}", "", f"![{title}]({address})"]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else number(value)
