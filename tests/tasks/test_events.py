"""Events are read once each, in order, whatever the writer is in the middle of."""

from __future__ import annotations

from pathlib import Path

from infra.events import EventReader
from ml.events import Events
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
