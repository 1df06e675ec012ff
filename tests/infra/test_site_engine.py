"""The engine, on machines that are folders here: order, rounds, failures, repairs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from configs.problems import Problem, UserError
from infra.machines.batch import Quick
from infra.machines.commands import Command, File, Removal
from infra.site.engine import Outcome, State, problems_of, run_steps
from infra.site.facts import TIMED_OUT, Fact, Facts, Reading
from infra.site.report import site_markdown
from infra.site.step import Change, Relay, Step


@dataclass(frozen=True)
class Said:
    status: int
    stdout: str


class Folder:
    """A machine that is a folder: commands run in it."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None) -> Said:
        done = subprocess.run(
            command.argv, cwd=self.path, input=command.stdin, text=True, capture_output=True, check=False
        )
        if done.returncode not in command.accepted:
            raise UserError(Problem(self.path.name, f"`{command.argv[0]}` failed"))
        return Said(done.returncode, done.stdout)

    def script(self, text: str, timeout_s: float) -> Said:
        return self.run(Command(("sh", "-s"), stdin=text))

    def run_all(
        self, actions: Sequence[Quick], on_begin: Callable[[int], None], on_line: Callable[[str], None]
    ) -> None:
        for index, action in enumerate(actions):
            on_begin(index)
            if isinstance(action, File):
                (self.path / action.path).write_text(action.text)
            elif isinstance(action, Removal):
                (self.path / action.path).unlink(missing_ok=True)
            else:
                self.run(action, on_line=on_line)

    def wait_until_reachable(self, timeout_s: float, on_wait: Callable[[str], None]) -> None:
        deadline = time.monotonic() + timeout_s
        while not (self.path / "up").exists():
            if time.monotonic() > deadline:
                raise UserError(Problem(self.path.name, "does not answer"))
            on_wait("is not up")
            time.sleep(0.02)


@pytest.fixture
def machines(tmp_path: Path) -> dict[str, Folder]:
    return {name: Folder(tmp_path / name) for name in ("a", "b")}


def touch(machine: str, name: str, *after: tuple[str, str], does: tuple[str, ...] = (), **more: bool) -> Step:
    """A step that wants a file of its own name."""
    fact = Fact(("test", "-e", name))

    def changes(facts: Facts) -> Iterator[Change]:
        if not facts[fact].ok:
            yield Change(f"touch {name}", "is not there", (Command(does or ("touch", name)),))

    return Step(name, machine, (fact,), changes, after, **more)


def run(steps: list[Step], machines: dict[str, Folder], **how: bool) -> dict[tuple[str, str], Outcome]:
    return run_steps(steps, machines, lambda step, state, detail: None, **{"apply": True, **how})


def test_what_differs_is_changed_once(machines: dict[str, Folder]) -> None:
    steps = [touch("a", "one"), touch("b", "two", ("a", "one"))]
    assert {item.state for item in run(steps, machines, apply=False).values()} == {State.DIFFERS}
    assert list(machines["a"].path.iterdir()) == []
    assert {item.state for item in run(steps, machines).values()} == {State.CHANGED}
    assert {item.state for item in run(steps, machines).values()} == {State.FITS}


def test_a_step_waits_for_those_before_it_and_for_no_others(machines: dict[str, Folder]) -> None:
    # Each of the two waits for the other's file: they end only if they run side by side.
    wait = "for i in $(seq 100); do [ -e {0} ] && exec touch {1}; sleep 0.05; done; exit 1"
    a, b = (str(machine.path) for machine in machines.values())
    steps = [
        touch("a", "left", does=("sh", "-c", "touch here; " + wait.format(f"{b}/here", "left"))),
        touch("b", "right", does=("sh", "-c", "touch here; " + wait.format(f"{a}/here", "right"))),
        touch("a", "last", ("a", "left"), ("b", "right"), does=("sh", "-c", f"test -e {b}/right && touch last")),
    ]
    outcomes = run(steps, machines)
    assert {item.state for item in outcomes.values()} == {State.CHANGED}
    assert outcomes["a", "last"].began >= max(outcomes["a", "left"].ended, outcomes["b", "right"].ended)


def test_a_failed_step_stops_those_after_it_only(machines: dict[str, Folder]) -> None:
    steps = [touch("a", "bad", does=("false",)), touch("a", "next", ("a", "bad")), touch("b", "other")]
    outcomes = run([*steps, touch("b", "end", ("a", "next"))], machines)
    assert [item.state for item in outcomes.values()] == [State.FAILED, State.LEFT_OUT, State.CHANGED, State.LEFT_OUT]
    assert [str(problem) for problem in problems_of(outcomes)] == ["a: `false` failed"]
    assert "| a | ✗ failed" in site_markdown(outcomes)


def test_what_stays_different_after_it_was_done_is_a_failure(machines: dict[str, Folder]) -> None:
    outcome = run([touch("a", "never", does=("true",))], machines)["a", "never"]
    assert outcome.state is State.FAILED
    assert "was done, yet is not there: touch never" in str(outcome.error)


def test_a_machine_too_busy_to_answer_is_left_as_it_is_and_told(machines: dict[str, Folder]) -> None:
    late = Fact(("sh", "-c", f"exit {TIMED_OUT}"), quick="/etc/share.mount")

    def changes(facts: Facts) -> Iterator[Change]:
        if not facts[late].ok:
            yield Change("write /etc/share.mount", "is not there", (Command(("touch", "share.mount")),))

    outcome = run([Step("mounts", "a", (late,), changes)], machines)["a", "mounts"]
    assert outcome.state is State.FAILED
    assert str(outcome.error).startswith("a, step mounts: /etc/share.mount was not read within 20 s")
    assert not (machines["a"].path / "share.mount").exists()


def test_facts_that_mean_something_only_later_take_another_round(machines: dict[str, Folder]) -> None:
    first, second = Fact(("test", "-e", "first")), Fact(("test", "-e", "second"))

    def changes(facts: Facts) -> Iterator[Change]:
        if not facts[first].ok:
            yield Change("first", "is not there", (Command(("touch", "first")),))
        elif not facts[second].ok:
            yield Change("second", "is not there", (Command(("touch", "second")),))

    outcome = run([Step("both", "a", (first, second), changes)], machines)["a", "both"]
    assert [change.what for change in outcome.changes] == ["first", "second"]


def test_what_the_facts_leave_open_is_asked_of_other_machines_and_silence_is_an_answer(
    machines: dict[str, Folder],
) -> None:
    here = Fact(("test", "-e", "here"))
    there, nowhere = Fact(("cat", "name"), at="b"), Fact(("cat", "name"), at="c")
    asked: list[bool] = []

    def asks(facts: Facts) -> list[Fact]:
        asked.append(facts[here].ok)
        return [] if facts[here].ok else [there, nowhere, replace(here, at="b"), Fact(("pwd",))]

    def changes(facts: Facts) -> Iterator[Change]:
        if not facts[here].ok:
            lost = facts[nowhere].unreached
            assert lost is not None
            why = f"{facts[there].text} {lost.what} {facts[replace(here, at='b')].ok} {facts[Fact(('pwd',))].text}"
            yield Change("touch here", why, (Command(("touch", "here")),))

    class Lost(Folder):
        def script(self, text: str, timeout_s: float) -> Said:
            raise UserError(Problem("c", "does not answer", "switch it on"))

    (machines["b"].path / "name").write_text("bee")
    (machines["b"].path / "here").touch()
    found = {**machines, "c": Lost(machines["a"].path.parent / "c")}
    step = Step("asks", "a", (here,), changes, asks=asks)
    outcome = run([step], found)["a", "asks"]
    assert outcome.state is State.CHANGED, outcome.error
    assert outcome.changes[0].why == f"bee does not answer True {machines['a'].path}\n"
    assert asked == [False, True]


def test_what_a_person_has_to_do_may_be_waited_for_first(machines: dict[str, Folder]) -> None:
    fact = Fact(("test", "-e", "back"))

    def step(wait: str) -> Step:
        lost = Change("have it back", "is lost", (Command(("sh", "-c", wait)),), by_hand="switch it on")
        return Step("lost", "a", (fact,), lambda facts: [] if facts[fact].ok else [lost])

    (problem,) = problems_of(run([step("touch waited")], machines))
    assert (machines["a"].path / "waited").exists()
    assert (problem.what, problem.remedy) == ("was waited for, yet is lost: have it back", "switch it on")
    assert run([step("touch back")], machines)["a", "lost"].state is State.CHANGED


def test_what_is_left_to_people_is_told_and_nothing_of_its_step_is_done(machines: dict[str, Folder]) -> None:
    fact = Fact(("true",))
    done = Change("touch x", "because", (Command(("touch", "x")),))
    risky = Change("format the disk", "is full", by_hand="look at it first")
    outcome = run([Step("disk", "a", (fact,), lambda facts: [done, risky])], machines)["a", "disk"]
    assert outcome.state is State.FAILED
    assert "look at it first" in str(outcome.error)
    assert not (machines["a"].path / "x").exists()


def test_a_check_mends_only_what_may_be_mended_without_a_person(machines: dict[str, Folder]) -> None:
    steps = [touch("a", "safe"), touch("a", "risky", repairable=False)]
    outcomes = run(steps, machines, only_repairs=True)
    assert [item.state for item in outcomes.values()] == [State.CHANGED, State.DIFFERS]


def test_what_one_machine_says_is_handed_to_another(machines: dict[str, Folder]) -> None:
    fact = Fact(("test", "-e", "token"))
    relay = Relay("b", Command(("printf", "s3cret")), lambda said: (Command(("tee", "token"), stdin=said),))
    told: list[str] = []
    lock = threading.Lock()

    def hear(step: Step, state: State, detail: str) -> None:
        with lock:
            told.append(detail)

    step = Step("join", "a", (fact,), lambda facts: [] if facts[fact].ok else [Change("join", "is alone", (relay,))])
    run_steps([step], machines, hear, apply=True)
    assert (machines["a"].path / "token").read_text() == "s3cret"
    assert "s3cret" not in "".join(told)


def maker(*then: str) -> Step:
    """A step that makes `new` at machine `b` for machine `a`, beside what is there already, and then runs a command."""
    fact = Fact(("test", "-e", "new"))

    def changes(facts: Facts) -> Iterator[Change]:
        if not facts[fact].ok:
            made = (Command(("touch", "new")), *([Command(then)] if then else []))
            yield Change("make new", "is not there", made, undo=(Command(("rm", "new")),))

    return Step("vm", "a", (fact,), changes, at="b")


def test_what_a_failed_step_has_made_new_is_undone_unless_it_is_to_be_kept(machines: dict[str, Folder]) -> None:
    (machines["b"].path / "old").touch()
    outcome = run([maker("false")], machines)["a", "vm"]
    assert [path.name for path in machines["b"].path.iterdir()] == ["old"]
    assert [problem.what for problem in problems_of({("a", "vm"): outcome})] == [
        "`false` failed",
        "was undone: make new",
    ]
    assert run([maker("false")], machines, keep=True)["a", "vm"].state is State.FAILED
    assert {path.name for path in machines["b"].path.iterdir()} == {"old", "new"}


def test_a_step_that_vouches_for_another_undoes_what_that_has_made_in_the_same_run(machines: dict[str, Folder]) -> None:
    key = ("a", "vm")
    doubt = replace(touch("a", "ready", key, does=("false",)), vouches_for=(key,))
    outcomes = run([maker(), doubt], machines)
    assert [item.state for item in outcomes.values()] == [State.CHANGED, State.FAILED]
    assert "was undone: make new" in str(outcomes["a", "ready"].error)
    assert not (machines["b"].path / "new").exists()
    # What was there before the run stays, whatever fails.
    (machines["b"].path / "new").touch()
    assert run([maker(), doubt], machines)["a", "ready"].state is State.FAILED
    assert (machines["b"].path / "new").exists()


def test_each_change_is_told_once_and_in_order(machines: dict[str, Folder]) -> None:
    made, told = maker(), list[str]()
    fact = Fact(("test", "-e", "last"))

    def changes(facts: Facts) -> Iterator[Change]:
        if not facts[fact].ok:
            yield Change("first", "is not there", (Command(("touch", "one")), Removal(PurePosixPath("one"))))
            yield from made.changes({**facts, made.facts[0]: Reading(1)})
            yield Change("last", "is not there", (File(PurePosixPath("last"), ""), Command(("touch", "more"))))

    step = Step("all", "b", (fact,), changes)
    outcome = run_steps([step], machines, lambda _, state, detail: told.append(f"{state} {detail}"), apply=True)
    assert told == ["reading ", *(f"applying {name}" for name in ("first", "make new", "last")), told[-1]]
    assert [change.what for change in outcome["b", "all"].changes] == ["first", "make new", "last"]
    assert sorted(path.name for path in machines["b"].path.iterdir()) == ["last", "more", "new"]


def test_what_cannot_be_undone_is_told(machines: dict[str, Folder]) -> None:
    outcome = run([maker("sh", "-c", "rm new; exit 1")], machines)["a", "vm"]
    assert "could not be undone: make new: `rm` failed" in str(outcome.error)


def test_a_check_makes_nothing_new(machines: dict[str, Folder]) -> None:
    assert run([maker()], machines, only_repairs=True)["a", "vm"].state is State.DIFFERS
    assert not (machines["b"].path / "new").exists()


def test_a_machine_that_is_starting_is_waited_for(machines: dict[str, Folder]) -> None:
    told: list[str] = []
    steps = [replace(touch("a", "ready"), boots_s=20), touch("b", "up-a", does=("sh", "-c", "touch ../a/up up-a"))]
    outcomes = run_steps(steps, machines, lambda step, state, detail: told.append(detail), apply=True)
    assert {item.state for item in outcomes.values()} == {State.CHANGED}
    late = run([replace(touch("b", "late"), boots_s=0.1)], machines)["b", "late"]
    assert late.state is State.FAILED


def test_a_dry_run_does_not_ask_a_machine_that_is_still_to_be_made(machines: dict[str, Folder]) -> None:
    told: dict[str, str] = {}

    def hear(step: Step, state: State, detail: str) -> None:
        told[step.name] = detail

    steps = [maker(), touch("a", "base", ("a", "vm")), touch("b", "other")]
    outcomes = run_steps(steps, machines, hear, apply=False)
    assert [item.state for item in outcomes.values()] == [State.DIFFERS, State.LEFT_OUT, State.DIFFERS]
    assert told["base"] == "vm of a comes first"
    # Nor does a check, which leaves the making to a person.
    outcomes = run([*steps, touch("b", "last")], machines, only_repairs=True)
    assert [outcomes[key].state for key in (("a", "vm"), ("a", "base"))] == [State.DIFFERS, State.LEFT_OUT]
    (machines["b"].path / "new").touch()
    assert run(steps, machines, apply=False)["a", "base"].state is State.DIFFERS


def test_what_somebody_else_brings_is_told_and_fails_nothing(machines: dict[str, Folder]) -> None:
    note = Change("bring a network", "there is none", note=True)
    step = replace(touch("a", "one"), changes=lambda facts: (note,))
    told: list[str] = []
    done = run_steps([step], machines, lambda step, state, detail: told.append(f"{state} {detail}"), apply=True)
    assert done["a", "one"].state is State.FITS
    assert done["a", "one"].changes == (note,)
    assert told[-1] == "fits bring a network"
    # Beside what the step itself does it is told as well.
    both = touch("a", "two")
    done = run([replace(both, changes=lambda facts: (*both.changes(facts), note))], machines)
    assert done["a", "two"].state is State.CHANGED
    assert [item.what for item in done["a", "two"].changes] == ["touch two", "bring a network"]


def test_what_takes_time_is_waited_for_by_a_run_and_only_told_by_a_check(machines: dict[str, Folder]) -> None:
    wanted = touch("a", "one")
    step = replace(
        wanted,
        changes=lambda facts: [replace(change, note=True) for change in wanted.changes(facts)],
        repairable=False,
    )
    checked = run([step], machines, only_repairs=True)["a", "one"]
    assert (checked.state, checked.changes[0].note) == (State.DIFFERS, True)
    assert run([step], machines)["a", "one"].state is State.CHANGED
