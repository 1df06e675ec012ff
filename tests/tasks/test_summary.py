"""The report of a run says what a reader of a pull request needs, and survives being saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tasks.summary import Summary, markdown

SUMMARY = Summary(
    recipe="configs/forklift.yaml",
    trained="ran",
    commit="0123456789abcdef0123456789abcdef01234567",
    dirty=True,
    data="aa.dir",
    data_tag="data-v2",
    model="forklift/4",
    promoted=True,
    reason="better: mAP50-95 0.4000 against the champion's 0.3500 (+0.0500)",
    metrics={"mAP50": 0.8, "mAP50-95": 0.4, "precision": 0.9, "recall": 0.7, "mAP50/person": 0.75},
    champion="forklift/3",
    champion_metrics={"mAP50": 0.7, "mAP50-95": 0.35, "precision": 0.9},
    run_url="http://127.0.0.1:5000/#/run",
    flow_url="",
    pictures={"Predictions": "reports/evaluate/plots/predictions.jpg"},
)


def test_report_of_a_new_champion() -> None:
    assert markdown(SUMMARY, {"Predictions": "latest/predictions.jpg"}) == (
        "# forklift/4\n"
        "\n"
        "forklift/4 is the new champion: better: mAP50-95 0.4000 against the champion's 0.3500 (+0.0500).\n"
        "\n"
        "| metric | forklift/4 | forklift/3 | difference | person |\n"
        "|---|---|---|---|---|\n"
        "| mAP50 | 0.800 | 0.700 | +0.100 | 0.750 |\n"
        "| mAP50-95 | 0.400 | 0.350 | +0.050 |  |\n"
        "| precision | 0.900 | 0.900 | +0.000 |  |\n"
        "| recall | 0.700 |  |  |  |\n"
        "\n"
        "| made from | |\n"
        "|---|---|\n"
        "| code | `0123456789ab` with uncommitted changes |\n"
        "| data | `aa.dir` (data-v2) |\n"
        "| recipe | `configs/forklift.yaml` |\n"
        "| training | ran |\n"
        "| MLflow run | [http://127.0.0.1:5000/#/run](http://127.0.0.1:5000/#/run) |\n"
        "\n"
        "## Predictions\n"
        "\n"
        "![Predictions](latest/predictions.jpg)\n"
    )


def test_what_became_of_the_model_in_one_sentence() -> None:
    unchanged = dataclasses.replace(SUMMARY, trained="unchanged", promoted=False, reason="")
    assert unchanged.verdict() == "Nothing was trained: code, data and parameters are those of forklift/4."
    away = dataclasses.replace(SUMMARY, model="")
    assert "registered and judged when it is back" in away.verdict()
    refused = dataclasses.replace(SUMMARY, promoted=False, reason="refused: not better")
    assert refused.verdict() == "forklift/4 was registered, the champion stays: refused: not better."


def test_a_summary_comes_back_as_it_was(tmp_path: Path) -> None:
    assert Summary.load(tmp_path) is None
    SUMMARY.save(tmp_path)
    assert Summary.load(tmp_path) == SUMMARY
