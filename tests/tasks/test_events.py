"""Events are read once each, in order, whatever the writer is in the middle of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.events import EventReader
from ml.events import Events
from tasks.ddp import is_sound
from tasks.events import told


def test_only_whole_new_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert list(reader.new()) == []
    events = Events("train", path)
    events.note("start", {"device": "cpu"})
    events.epoch(1, 2, {"mAP50": 0.5}, eta_s=65)
    with path.open("a") as file:
        file.write('{"stage": "train", "kind"')
    first, second = reader.new()
    assert (first["params"], second["epoch"]) == ({"device": "cpu"}, 1)
    assert told(second) == "epoch 1/2  mAP50 0.500, 1 min 5 s left"
    assert list(reader.new()) == []
    with path.open("a") as file:
        file.write(': "note", "message": "end"}\n')
    assert [told(event) for event in reader.new()] == ["end"]


def test_a_second_reader_begins_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Events("validate", path).note("before")
    reader = EventReader(path)
    Events("train", path).note("after")
    assert [event["message"] for event in reader.new()] == ["after"]


def test_a_line_that_is_no_text_is_an_event_with_odd_letters(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    path.write_bytes(b'{"kind": "note", "message": "caf\xe9"}\n')
    assert [told(event) for event in reader.new()] == ["caf\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "epoch", "epoch": 1, "epochs": 2, "metrics": {"loss": NaN}, "eta_s": 3.5}',
        '{"kind": "progress", "done": 1, "total": 2}',
        '{"kind": "note", "message": "hello", "params": null}',
    ],
)
def test_what_a_script_may_leave_out_of_its_events(line: str) -> None:
    assert is_sound(json.loads(line))


@pytest.mark.parametrize(
    "line",
    [
        "3",
        '["epoch"]',
        "null",
        '{"kind": "step"}',
        '{"kind": "epoch", "epoch": 1, "epochs": 0, "metrics": {}}',
        '{"kind": "epoch", "epoch": 1, "epochs": 2}',
        '{"kind": "epoch", "epoch": NaN, "epochs": 2, "metrics": {}}',
        '{"kind": "epoch", "epoch": 1, "epochs": 2, "metrics": {"loss": "low"}}',
        '{"kind": "epoch", "epoch": 1, "epochs": 2, "metrics": {}, "eta_s": "soon"}',
        '{"kind": "epoch", "epoch": 1, "epochs": 2, "metrics": {}, "eta_s": Infinity}',
        '{"kind": "progress", "done": 1, "total": 2, "message": 3}',
        '{"kind": "note"}',
        '{"kind": "note", "message": "hello", "params": "lr=1"}',
    ],
)
def test_other_lines_of_a_script_are_no_events(line: str) -> None:
    assert not is_sound(json.loads(line))
