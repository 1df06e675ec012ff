"""What is read ahead saves looks, and is used only while it is still so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from test_site_engine import Folder, touch

from configs.problems import UserError
from infra.machines.commands import Command, File
from infra.site.engine import State, run_steps
from infra.site.facts import TIMED_OUT, Fact, Reading
from infra.site.looks import Looks
from infra.site.reading import file_fact, packages_fact, unit_fact
from infra.site.step import Change, Relay, Step


class Counting(Folder):
    """Counts the looks at it."""

    looks = 0

    def script(self, text: str, timeout_s: float) -> Any:
        self.looks += 1
        return super().script(text, timeout_s)


@pytest.fixture
def machines(tmp_path: Path) -> dict[str, Counting]:
    return {name: Counting(tmp_path / name) for name in ("a", "b")}


def there(name: str) -> Fact:
    return Fact(("test", "-e", name))


def following(*steps: Step) -> Any:
    return lambda step: steps


def test_what_the_next_step_asks_is_read_when_the_one_before_is_done(machines: dict[str, Counting]) -> None:
    steps = [touch("a", "x"), touch("a", "y", ("a", "x")), touch("a", "z", ("a", "y")), touch("b", "w", ("a", "x"))]
    outcomes = run_steps(steps, machines, lambda step, state, detail: None, apply=True)
    assert {outcome.state for outcome in outcomes.values()} == {State.CHANGED}
    assert (machines["a"].looks, machines["b"].looks) == (4, 2)
    again = run_steps(steps, machines, lambda step, state, detail: None, apply=True)
    assert {outcome.state for outcome in again.values()} == {State.FITS}


def test_what_comes_next_is_asked_after_the_answers_before_it(machines: dict[str, Counting]) -> None:
    slow = Step("slow", "a", (Fact(("sh", "-c", "sleep 0.3; touch late")),), lambda facts: ())
    nexts = Step("next", "a", (there("late"),), lambda facts: ())
    looks = Looks(machines, following(nexts))
    looks.read(slow, done=True)
    assert looks.read(nexts, done=False)[there("late")].ok
    assert machines["a"].looks == 1


@pytest.mark.parametrize("by", ["itself", "a relay"])
def test_what_was_read_ahead_is_forgotten_when_something_is_done_there(machines: dict[str, Counting], by: str) -> None:
    first, second = touch("a", "x"), touch("a", "y")
    looks = Looks(machines, following(second))
    assert not looks.read(first, done=True)[there("x")].ok
    (machines["a"].path / "y").touch()
    done: Sequence[Change] = [Change("ask a", "", (Relay("a", Command(("true",)), lambda said: ()),))]
    with looks.doing(first if by == "itself" else touch("b", "w"), done):
        pass
    assert looks.read(second, done=False)[there("y")].ok


def test_what_was_read_while_something_was_done_is_read_again(machines: dict[str, Counting]) -> None:
    first, second = touch("a", "x"), touch("a", "y")
    looks = Looks(machines, following(second))
    with looks.doing(touch("a", "w"), ()):
        looks.read(first, done=True)
        (machines["a"].path / "y").touch()
    assert looks.read(second, done=False)[there("y")].ok


def test_what_was_read_ahead_is_used_once(machines: dict[str, Counting]) -> None:
    first, second = touch("a", "x"), touch("a", "y")
    looks = Looks(machines, following(second))
    looks.read(first, done=True)
    assert looks.read(second, done=False) == {there("y"): Reading(1)}
    (machines["a"].path / "y").touch()
    assert looks.read(second, done=False) == {there("y"): Reading(0)}


def test_a_machine_that_is_about_to_boot_is_not_asked_ahead(machines: dict[str, Counting]) -> None:
    first, second = touch("a", "x"), Step("boots", "a", (there("y"),), lambda facts: (), boots_s=5)
    looks = Looks(machines, following(second))
    looks.read(first, done=True)
    (machines["a"].path / "y").touch()
    assert looks.read(second, done=False)[there("y")].ok


def test_what_a_busy_machine_does_not_say_in_time_is_not_taken_for_absent(machines: dict[str, Counting]) -> None:
    asked = (file_fact(File(PurePosixPath("/etc/a"), "")), unit_fact("a.service"), packages_fact(("samba",)))
    late = tuple(replace(fact, argv=("sh", "-c", f"exit {TIMED_OUT}; : {number}")) for number, fact in enumerate(asked))
    with pytest.raises(UserError) as caught:
        Looks(machines, following()).read(Step("late", "a", late, lambda facts: ()), done=False)
    for told in ("/etc/a was not read within 20 s", "a.service was not read", "the list of packages was not read"):
        assert told in str(caught.value)
    # Of what may take its time, silence is an answer.
    login = Fact(("sh", "-c", f"exit {TIMED_OUT}"))
    assert (
        Looks(machines, following()).read(Step("slow", "a", (login,), lambda facts: ()), done=False)[login].status
        == 124
    )
