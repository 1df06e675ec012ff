"""What the benchmarks of SMB share: the three datasets, the cost of a command, pairs that take turns, tables.

All clients talk to one real ``smbd``, which demands a signature of every message.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import CommandError, Cost

PACKAGE = Path(__file__).resolve().parents[1] / "packages/dvc-smb"
sys.path.insert(0, str(PACKAGE / "tests"))

BLOCK = 1 << 20


@dataclass(frozen=True)
class Work:
    """Files of one size, in bytes."""

    count: int
    size: int
    suffix: str

    def scaled(self, scale: float) -> Work:
        """Return fewer files, or a smaller one where there is one."""
        if self.count == 1:
            return Work(1, max(int(self.size * scale), 1), self.suffix)
        return Work(max(int(self.count * scale), 1), self.size, self.suffix)

    def __str__(self) -> str:
        size = f"{self.size / 1e6:.0f} MB" if self.size >= 10**6 else f"{self.size / 1e3:.0f} kB"
        return f"{self.count:,} x {size}"


#: What our share sets otherwise than Samba does by default, for speed (infra/samba/server.py); all clients gain by it.
SETTINGS = {
    "case sensitive": "yes",
    "change notify": "no",
    "kernel change notify": "no",
    "store dos attributes": "no",
    "ea support": "no",
    "map archive": "no",
}

WORKS = {
    "images": Work(2_000, 150_000, "jpg"),
    "large": Work(1, 1_000_000_000, "tar"),
    "labels": Work(20_000, 1_000, "txt"),
}


def make_files(folder: Path, work: Work) -> None:
    """Fill a folder with ``train/`` and ``val/``, the same each time; bytes that do not compress."""
    generator = random.Random(f"{work.count} {work.size}")
    for number in range(work.count):
        path = folder / ("val" if number % 5 == 4 else "train") / f"{number:06d}.{work.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, work.size, BLOCK):
                file.write(generator.randbytes(min(BLOCK, work.size - start)))


def total(folder: Path) -> tuple[int, int]:
    """Return how many files lie below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def take_turns(clients: Mapping[str, Callable[[], Cost]], pairs: int, what: str) -> dict[str, list[Cost]]:
    """Run each client ``pairs`` times, in turns, in an order that changes; the first turn only warms up.

    A client that fails has no part in the turns that follow, and no costs.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in clients}
    failed: set[str] = set()
    for turn in range(-1, pairs):
        for name in list(clients)[:: -1 if turn % 2 else 1]:
            if name in failed:
                continue
            try:
                cost = clients[name]()
            except CommandError as error:
                print(f"{what}: {name} failed: {error}", file=sys.stderr)
                failed.add(name)
                costs[name].clear()
                continue
            note = f"{cost.wall_s:.2f} s, CPU {cost.cpu_s:.2f} s, {cost.memory_mib:.0f} MiB"
            print(f"{what}, {'warm-up' if turn < 0 else f'pair {turn + 1}'}: {name}: {note}", file=sys.stderr)
            if turn >= 0:
                costs[name].append(cost)
    return costs


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the median of ``ours / theirs`` of the pairs, with the least and the most."""
    all_ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(all_ratios):.2f} ({min(all_ratios):.2f}..{max(all_ratios):.2f})"


def print_table(title: str, costs: Mapping[str, Sequence[Cost]], ours: str) -> None:
    """Print one Markdown table: a row a client, the ratio is our time over that client's."""
    print(f"\n**{title}**\n")
    print("| client | seconds | our time / its | client CPU, s | our CPU / its | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    for name, rows in costs.items():
        if not rows:
            print(f"| {name} | failed | | | | |", flush=True)
            continue
        wall, cpu = [row.wall_s for row in rows], [row.cpu_s for row in rows]
        mine = costs[ours]
        wall_ratio = "" if name == ours or not mine else ratios([row.wall_s for row in mine], wall)
        cpu_ratio = "" if name == ours or not mine else ratios([row.cpu_s for row in mine], cpu)
        memory = statistics.median(row.memory_mib for row in rows)
        print(
            f"| {name} | {statistics.median(wall):.2f} ({min(wall):.2f}..{max(wall):.2f}) | {wall_ratio} "
            f"| {statistics.median(cpu):.2f} | {cpu_ratio} | {memory:.0f} |",
            flush=True,
        )


@contextlib.contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """Make a folder for the data, of both sides, and remove it at the end."""
    path = Path(tempfile.mkdtemp(prefix="smb-benchmark-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def arguments(description: str, works: Sequence[str]) -> argparse.ArgumentParser:
    """Return the options that all these benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=works, default=works, help="what to measure")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the files, or of the one file's bytes")
    parser.add_argument("--folder", type=Path, help="where the data of both sides lies (a disk, or a tmpfs)")
    return parser
