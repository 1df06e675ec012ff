"""Which rank failed first, told from what torchrun and the ranks printed; and torchrun's command."""

from __future__ import annotations

from pathlib import PurePosixPath

from gangs import gang

from infra.ddp.command import rank_environment, threads_a_rank, torchrun_options
from infra.ddp.failure import RankFailure, Transcript, ended, parse_report

REPORT = """\
Traceback (most recent call last):
  File "/usr/bin/torchrun", line 10, in <module>
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-23_19:38:12
  host      : node2
  rank      : 2 (local_rank: 0)
  exitcode  : -9 (pid: 13343)  (SIGKILL)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 13343
[2]:
  time      : 2026-11-23_19:38:12
  host      : node1
  rank      : 1 (local_rank: 1)
  exitcode  : -15 (pid: 13345)  (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 13345
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-23_19:38:12
  host      : node1
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 13344)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""


def transcript(*lines: str) -> Transcript:
    read = Transcript()
    for line in (*lines, *REPORT.splitlines()):
        read.add(line)
    return read


def test_the_report_is_read_root_cause_first() -> None:
    assert parse_report(REPORT.splitlines()) == [
        RankFailure(0, 1, "node1"),
        RankFailure(2, -9, "node2"),
        RankFailure(1, -15, "node1"),
    ]


def test_a_rank_that_only_lost_its_peer_is_not_the_cause() -> None:
    read = transcript("[rank 0] RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:4")
    assert [failure.rank for failure in read.failures()] == [2, 0, 1]
    assert read.problem("toy-1", 1).where == "toy-1, rank 2"
    assert "(it said nothing)" in read.problem("toy-1", 1).what


def test_a_rank_with_words_of_its_own_is_the_cause() -> None:
    problem = transcript("[rank 0] KeyError: 'loss'").problem("toy-1", 1)
    assert (problem.where, problem.what) == (
        "toy-1, rank 0",
        "ended with exit code 1; its last lines:\nKeyError: 'loss'",
    )


def test_words_of_an_earlier_attempt_are_not_shown() -> None:
    read = Transcript()
    read.add("[rank 0] first attempt")
    assert read.add("E1123 api.py:1002] failed (exitcode: -9) local_rank: 1 (pid: 13337) of binary: python") == (
        "a rank failed: local rank 1 was ended by SIGKILL"
    )
    read.started()
    read.add("[rank 0] second attempt")
    assert read.last_words(0) == ["second attempt"]


def test_words_that_come_after_the_failure_was_told_belong_to_the_attempt_that_failed() -> None:
    read = Transcript()
    read.add("[rank 0] first words")
    read.add("E1123 api.py:1002] failed (exitcode: 3) local_rank: 0 (pid: 13337) of binary: python")
    read.add("[rank 0] last words")
    assert read.last_words(0) == ["first words", "last words"]


def test_without_a_report_torchrun_itself_is_quoted() -> None:
    read = Transcript()
    read.add("torchrun: error: the following arguments are required: training_script")
    problem = read.problem("toy-1", 2)
    assert problem.where == "toy-1"
    assert "ended with exit code 2:\ntorchrun: error: the following" in problem.what


def test_how_processes_end() -> None:
    assert [ended(code) for code in (3, -9, -250)] == [
        "ended with exit code 3",
        "was ended by SIGKILL",
        "was ended by signal 250",
    ]


def test_torchruns_command() -> None:
    training = gang("toy-1", "-m", "toy", "--lr", "0.1", max_restarts=2, rendezvous_s=90)
    options = torchrun_options(
        training, nodes="1:4", processes=2, endpoint="toy-1-0.toy-1:29500", log_dir=PurePosixPath("/logs")
    )
    assert options == [
        "--nnodes=1:4",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=toy-1-0.toy-1:29500",
        "--rdzv-id=toy-1",
        "--rdzv-conf=join_timeout=90",
        "--max-restarts=2",
        "--monitor-interval=0.5",
        "--shutdown-timeout=15",
        "--log-dir=/logs",
        "--redirects=3",
        "--tee=3",
        "-m",
        "toy",
        "--lr",
        "0.1",
    ]


def test_the_environment_of_ranks() -> None:
    training = gang("toy-1", "toy.py", environment={"LR": "1", "OMP_NUM_THREADS": "9"})
    given = rank_environment(training, threads=2, data="/d", checkpoints="/c", output="/o", events="/e")
    assert given == {
        "LR": "1",
        "OMP_NUM_THREADS": "2",
        "PYTHONUNBUFFERED": "1",
        "MLOPS_BACKEND": "gloo",
        "MLOPS_DATA": "/d",
        "MLOPS_CHECKPOINTS": "/c",
        "MLOPS_OUTPUT": "/o",
        "MLOPS_EVENTS": "/e",
    }
    assert [threads_a_rank(8, 4), threads_a_rank(2, 4)] == [2, 1]
