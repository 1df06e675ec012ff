"""Files by a session's script, as several sessions write them at once."""

from __future__ import annotations

import grp
import os
import subprocess
from pathlib import Path, PurePosixPath

from infra.machines.batch import Batch
from infra.machines.commands import File


def test_sessions_side_by_side_write_the_same_file_whole(tmp_path: Path) -> None:
    path, group = tmp_path / "units" / "one.service", grp.getgrgid(os.getgid()).gr_name
    texts = [str(number) * 100_000 for number in range(8)]
    batches = [Batch([File(PurePosixPath(path), text, 0o640, group)], lambda _: None, lambda _: None) for text in texts]
    running = [subprocess.Popen(["sh", "-s"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in texts]
    for batch, process in zip(batches, running, strict=True):
        assert process.stdin is not None
        process.stdin.write(batch.script)
        process.stdin.close()
    said = [process.stderr.read() for process in running if process.stderr is not None]
    assert [process.wait(60) for process in running] == [0] * len(texts), said
    assert path.read_text() in texts
    assert path.stat().st_mode & 0o777 == 0o640
    assert [item.name for item in path.parent.iterdir()] == ["one.service"]
