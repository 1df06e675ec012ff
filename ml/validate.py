"""Stage ``validate``: are images, labels and splits sound?

As a stage: ``python -m ml.validate --recipe configs/forklift.yaml`` writes ``reports/validate``. By hand on any
folder in YOLO layout: ``python -m ml.validate DIR``, which writes only where ``--out`` says. Nothing of the dataset
is changed. Exit status 1 if the share of faulty files is above the allowed one, or the dataset as a whole is unfit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from configs.problems import Problem, UserError, run_main
from configs.recipe import DataSection, load_recipe
from ml.dataset import SPLITS, Fault, open_dataset
from ml.dataset.checks import inspect
from ml.dataset.grid import draw_grid
from ml.dataset.report import Report, make_report
from ml.events import Events
from ml.inputs import inputs_held

OUT = Path("reports/validate")
_SHOWN = 20


def validate(
    root: Path, classes: Sequence[str] | None, max_faulty: float, out: Path | None, console: Console
) -> Report:
    """Check the dataset in ``root``, show what was found, and write ``report.json`` and ``samples.jpg`` to ``out``.

    Args:
        root: folder in YOLO layout.
        classes: class names in label order; none: those of its ``dataset.yaml``.
        max_faulty: share of faulty files that is allowed, 0 to 1.
        out: folder to write to (made if missing); none: nothing is written.
        console: where the table goes.

    Raises:
        UserError: ``root`` is no dataset at all, or ``out`` cannot be written.
    """
    events = Events("validate")
    dataset = open_dataset(root, classes)
    if out and out.resolve().is_relative_to(root.resolve()):
        raise UserError(Problem(str(out), "lies in the dataset itself", "write the report somewhere else"))
    total = len(dataset.samples)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=total)
        started = last = time.monotonic()

        def show(done: int) -> None:
            nonlocal last
            bar.update(task, completed=done)
            now = time.monotonic()
            if done == total or now - last > 1:
                last = now
                events.progress(done, total, "images", eta_s=round((now - started) / done * (total - done), 1))

        inspection = inspect(dataset, show)
    report = make_report(inspection, max_faulty)
    if out:
        try:
            out.mkdir(parents=True, exist_ok=True)
            report.write(out / "report.json")
            draw_grid(inspection, out / "samples.jpg")
        except OSError as error:
            raise UserError(Problem(str(out), f"cannot be written: {error.strerror}", "make room there")) from None
    _show(report, console)
    events.note(_sentence(report))
    return report


def raise_if_failed(report: Report, root: Path) -> None:
    """Stop at a dataset that failed.

    Raises:
        UserError: the report's verdict is ``fail``; names every error with file, line and reason.
    """
    if not report.passed:
        found = [Problem(str(root / fault.where), fault.reason, fault.remedy) for fault in report.errors]
        raise UserError([*found, Problem(str(root), _sentence(report), "mend the files above, then run again")])


def _sentence(report: Report) -> str:
    faulty = report.values["faulty"]
    of_dataset = faulty["dataset_errors"]
    unfit = f", and {of_dataset} error{'s' * (of_dataset != 1)} of the dataset as a whole" if of_dataset else ""
    return (
        f"{faulty['files']} of {faulty['of']} files are faulty "
        f"({faulty['share']:.2%}, allowed are {faulty['max_share']:.2%}){unfit}"
    )


def _show(report: Report, console: Console) -> None:
    values = report.values
    table = Table(title="dataset", title_justify="left")
    for head in ("split", "images", "background", "faulty", *values["classes"]):
        table.add_column(escape(head), justify="left" if head == "split" else "right")
    for split in SPLITS:
        counts = values["splits"][split]
        numbers = [counts["images"], counts["background"], counts["faulty"], *counts["classes"].values()]
        table.add_row(split, *map(str, numbers))
    console.print(table)
    # Above the allowed share the errors are told by the exception that follows.
    if report.passed:
        _list(report.errors, "error", len(report.errors), console)
    _list(report.warnings, "warning", _SHOWN, console)
    console.print(f"{values['verdict']}: {_sentence(report)}", style="green" if report.passed else "red")


def _list(faults: Sequence[Fault], name: str, limit: int, console: Console) -> None:
    if not faults:
        return
    console.print(f"{len(faults)} {name}{'s' * (len(faults) != 1)}:")
    for fault in faults[:limit]:
        console.print(f"  {fault.where}: {fault.reason} ({fault.kind})", markup=False, soft_wrap=True)
    if len(faults) > limit:
        console.print(f"  and {len(faults) - limit} more, all of them in report.json")


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main() -> None:
    """Read the command line, check, and stop if the dataset failed."""
    parser = argparse.ArgumentParser(prog="python -m ml.validate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dir", nargs="?", type=Path, help="a folder in YOLO layout")
    parser.add_argument("--recipe", type=Path, help="take folder, classes and allowed share from this recipe")
    parser.add_argument("--classes", help="class names in label order, separated by commas")
    parser.add_argument("--max-faulty", type=_fraction, help="share of faulty files above which the exit status is 1")
    parser.add_argument("--out", type=Path, help=f"folder for report.json and samples.jpg (with --recipe: {OUT})")
    given = parser.parse_args()
    if (given.dir is None) == (given.recipe is None):
        parser.error("give either a folder or --recipe")
    with inputs_held("validate", given.recipe):
        _validate(given)


def _validate(given: argparse.Namespace) -> None:
    if given.recipe:
        data = load_recipe(given.recipe).data
        root, classes, max_faulty, out = data.path, data.classes, data.max_faulty, given.out or OUT
    else:
        root, classes, out = given.dir, None, given.out
        max_faulty = DataSection.model_fields["max_faulty"].default
    if given.classes:
        classes = tuple(name.strip() for name in given.classes.split(","))
    if given.max_faulty is not None:
        max_faulty = given.max_faulty
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    raise_if_failed(validate(root, classes, max_faulty, out, console), root)


if __name__ == "__main__":
    run_main(main)
