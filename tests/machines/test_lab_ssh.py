"""The ssh layer on a real machine: what comes back, what goes wrong, and what is never seen."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest
import yaml
from lab import Lab, LabMachine

from configs.problems import UserError
from configs.site import Site
from infra.machines.commands import Command, File, Removal
from infra.machines.host_keys import fingerprint, offered_keys, pin
from infra.machines.ssh import Machine
from infra.machines.trouble import ConnectionLost, Login, MachineError
from infra.site.access import fetch_kubeconfig

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def there(lab: Lab) -> LabMachine:
    return lab.add("desk")[0]


@pytest.fixture
def machine(there: LabMachine, tmp_path: Path) -> Iterator[Machine]:
    pin(tmp_path, "desk", [there.host_key])
    with Machine(login(there), tmp_path) as opened:
        yield opened


def login(there: LabMachine, **changed: object) -> Login:
    values = {"name": "desk", "address": there.address, "user": "admin", "port": 22, "key": there.key}
    return Login(**{**values, **changed})  # type: ignore[arg-type]


def test_a_command_runs_as_root_and_its_outputs_and_status_come_back(machine: Machine) -> None:
    lines: list[str] = []
    done = machine.run(
        Command(("sh", "-c", 'id -u; echo "a  b" >&2; cat; exit 255'), stdin="given\n", accepted=frozenset({255})),
        on_line=lines.append,
    )
    assert (done.status, done.stdout, done.stderr) == (255, "0\ngiven\n", "a  b\n")
    assert sorted(lines) == ["0", "a  b", "given"]


def test_a_failed_command_is_told_with_its_last_words_and_never_its_input(machine: Machine) -> None:
    with pytest.raises(MachineError) as caught:
        machine.run(Command(("sh", "-c", "cat >/dev/null; echo no such thing >&2; exit 3"), stdin="s3cret"))
    assert "ended with 3" in str(caught.value)
    assert "no such thing" in str(caught.value)
    assert str(caught.value).startswith("desk: ")
    assert "s3cret" not in str(caught.value)


def test_files_are_written_whole_with_mode_and_group(machine: Machine, there: LabMachine) -> None:
    path = PurePosixPath("/etc/of ours/a file")
    text = "ä\n" * 500_000
    mark = PurePosixPath("/run/of ours/mark")
    machine.run_all([File(path, text, 0o640, secret=True, group="adm", marks=(mark,))])
    assert machine.read(mark) == b""
    assert there.run("stat", "-c", "%a %U %G", str(path)).split() == ["640", "root", "adm"]
    assert there.run("sha256sum", str(path)).split()[0] == hashlib.sha256(text.encode()).hexdigest()
    assert machine.read(path) == text.encode()
    assert there.run("ls", "/etc/of ours").strip() == "a file"
    machine.run_all([Removal(path), Removal(path)])
    assert machine.read(path) is None


def test_short_commands_share_a_session_and_the_first_that_fails_is_the_last(machine: Machine) -> None:
    begun: list[int] = []
    lines: list[str] = []
    place = PurePosixPath("/run/shared")
    machine.run_all(
        [
            Command(("sh", "-c", 'cat; printf "no end"; exit 9'), stdin="it's given\n", accepted=frozenset({0, 9})),
            File(place / "file", "$(text)\n"),
            Command(("sh", "-c", 'cat; cat "$1" >&2', "sh", str(place / "file"))),
        ],
        begun.append,
        lines.append,
    )
    assert begun == [0, 1, 2]
    assert sorted(lines) == ["$(text)", "it's given", "no end"]
    with pytest.raises(MachineError) as caught:
        machine.run_all(
            [
                Removal(place / "file"),
                Command(("echo", "of another")),
                Command(("sh", "-c", "cat >/dev/null; echo no such thing >&2; exit 3"), stdin="s3cret"),
                File(place / "never", ""),
            ]
        )
    assert str(caught.value).startswith("desk: `sh -c 'cat >/dev/null; echo no such thing >&2; exit 3'` ended with 3")
    assert "| no such thing" in str(caught.value)
    assert "of another" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert machine.run(Command(("ls", str(place)))).stdout == ""
    with pytest.raises(MachineError, match="/run/shared/no/file cannot be written"):
        machine.run_all([Command(("touch", str(place / "no"))), File(place / "no/file", "")])


def test_more_side_by_side_than_the_machine_lets_in_at_once_are_all_run(machine: Machine) -> None:
    def say(number: int) -> str:
        return machine.run(Command(("sh", "-c", 'sleep 0.2; echo "$1"', "sh", str(number)))).stdout

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(say, range(32))) == [f"{number}\n" for number in range(32)]


def test_of_several_the_one_that_takes_too_long_is_ended_and_named(machine: Machine, there: LabMachine) -> None:
    with pytest.raises(MachineError, match=r"`sleep 4712` took more than 1 s"):
        machine.run_all([Command(("true",)), Command(("sleep", "4712"), timeout_s=1)])
    assert "sleep 4712" not in there.run("ps", "ax")


def test_of_several_the_one_that_runs_is_ended_when_we_stop(machine: Machine, there: LabMachine) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    endless = Command(("sh", "-c", "echo here; sleep 4713; touch /run/gone-on"))
    with pytest.raises(KeyboardInterrupt):
        machine.run_all([Command(("true",)), endless, File(PurePosixPath("/run/gone-on"), "")], on_line=stop)
    deadline = time.monotonic() + 10
    while "sleep 4713" in there.run("ps", "ax"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "gone-on" not in there.run("ls", "/run")


@pytest.mark.parametrize("together", [False, True])
def test_what_is_given_is_on_no_command_line(machine: Machine, there: LabMachine, *, together: bool) -> None:
    secret = "canary-5f1d"
    command = Command(("sh", "-c", "cat; sleep 2"), stdin=secret)
    run, given = (machine.run_all, [command]) if together else (machine.run, command)
    running = threading.Thread(target=run, args=(given,))
    running.start()
    time.sleep(0.7)
    seen = there.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '")
    here = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    running.join()
    assert "sleep 2" in seen
    assert secret not in seen
    assert secret.encode() not in here


def test_a_command_that_takes_too_long_is_ended_there_too(machine: Machine, there: LabMachine) -> None:
    with pytest.raises(MachineError, match=r"took more than 1 s"):
        machine.run(Command(("sleep", "4711"), timeout_s=1))
    assert "sleep 4711" not in there.run("ps", "ax")


def test_host_keys_are_pinned_by_name(there: LabMachine, tmp_path: Path) -> None:
    shown = fingerprint(offered_keys(there.address, 22)[0])
    with Machine(login(there), tmp_path) as machine:
        with pytest.raises(MachineError) as unknown:
            machine.run(Command(("true",)))
        assert shown in str(unknown.value)
        assert "mlops site trust desk" in str(unknown.value)
        other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
        pin(tmp_path, "desk", [other])
        with pytest.raises(MachineError) as changed:
            machine.run(Command(("true",)))
        assert shown in str(changed.value)
        assert fingerprint(other) in str(changed.value)
        pin(tmp_path, "desk", [there.host_key])
        assert machine.run(Command(("true",))).status == 0


def sshd_said(there: LabMachine, words: str, since: str) -> int:
    """How many lines of the machine's ssh server have these words, after a time of its clock."""
    return there.run("journalctl", "--quiet", "--unit=ssh", f"--since={since}", "--output=cat").count(words)


def test_commands_that_begin_together_log_in_once(machine: Machine, there: LabMachine) -> None:
    since = there.run("date", "+@%s.%N").strip()
    with ThreadPoolExecutor(12) as pool:
        said = list(pool.map(lambda number: machine.run(Command(("echo", str(number)))).stdout, range(12)))
    assert said == [f"{number}\n" for number in range(12)]
    # The one login besides it is that of the question for the journal.
    assert sshd_said(there, "Accepted publickey", since) == 2


def test_who_is_not_let_in_asks_once_for_all_that_wait(there: LabMachine, tmp_path: Path) -> None:
    since = there.run("date", "+@%s.%N").strip()

    def refused(machine: Machine) -> str:
        with pytest.raises(MachineError) as caught:
            machine.run(Command(("true",)))
        return str(caught.value)

    with Machine(login(there), tmp_path) as machine, ThreadPoolExecutor(8) as pool:
        told = set(pool.map(refused, [machine] * 8))
    assert len(told) == 1
    assert "mlops site trust desk" in told.pop()
    # The one that tried, and the one that looked which key is shown.
    assert sshd_said(there, "[preauth]", since) <= 2


@pytest.mark.parametrize(
    ("changed", "said", "remedy"),
    [
        ({"user": "nobody"}, "does not let nobody in", "authorized_keys"),
        ({"port": 4}, "port 4, refuses", "`ssh: {port: N}`"),
        ({"key": Path("/nowhere/key")}, "our key /nowhere/key is not there", "`ssh: {key: PATH}`"),
    ],
)
def test_what_keeps_us_out_is_one_sentence_and_a_remedy(
    there: LabMachine, tmp_path: Path, changed: dict[str, object], said: str, remedy: str
) -> None:
    pin(tmp_path, "desk", [there.host_key])
    with Machine(login(there, **changed), tmp_path) as machine, pytest.raises(MachineError) as caught:
        machine.run(Command(("true",)))
    assert said in caught.value.problems[0].what
    assert remedy in caught.value.problems[0].remedy


def test_who_may_not_become_root_is_told(there: LabMachine, tmp_path: Path) -> None:
    there.run("useradd", "--create-home", "guest")
    there.run("cp", "-r", "/home/admin/.ssh", "/home/guest/.ssh")
    there.run("chown", "-R", "guest:", "/home/guest/.ssh")
    pin(tmp_path, "desk", [there.host_key])
    with Machine(login(there, user="guest"), tmp_path) as machine, pytest.raises(MachineError) as caught:
        machine.run(Command(("true",)))
    assert "guest cannot run commands as root" in str(caught.value)
    assert "sudoers" in caught.value.problems[0].remedy


def test_a_power_cut_ends_a_command_and_the_machine_is_waited_for(machine: Machine, there: LabMachine) -> None:
    machine.run(Command(("true",)))  # the connection stands, however long it took
    cut = threading.Timer(0.5, there.cut_power)
    cut.start()
    with pytest.raises(ConnectionLost, match="was lost while `sleep 60` ran"):
        machine.run(Command(("sleep", "60")))
    cut.join()
    with pytest.raises(ConnectionLost, match="refuses"):
        machine.run(Command(("true",)))
    there.boot()
    reasons: list[str] = []
    machine.wait_until_reachable(60, reasons.append)
    assert reasons
    assert machine.run(Command(("id", "-u"))).stdout == "0\n"


def test_the_clusters_login_comes_here_for_its_owner_only(there: LabMachine, machine: Machine, tmp_path: Path) -> None:
    cluster = {"name": "c", "cluster": {"server": "https://cluster:6443", "certificate-authority-data": "Q0E="}}
    text = yaml.safe_dump(
        {"kind": "Config", "clusters": [cluster], "users": [{"name": "a", "user": {"token": "s3cret"}}]}
    )
    machine.run_all([File(PurePosixPath("/etc/kubernetes/admin.conf"), text, 0o600, secret=True)])
    ssh = {"user": "admin", "key": there.key}
    site = Site.model_validate(
        {
            "storage": {"kind": "directory"},
            "kubernetes": {"version": "1.33.5"},
            "hosts": {"desk": {"address": there.address, "roles": ["control-plane"], "ssh": ssh}},
        }
    )
    pin(tmp_path / "site", "desk", [there.host_key])
    path = fetch_kubeconfig(site, tmp_path)
    assert path == tmp_path / "site/kubeconfig"
    assert path.stat().st_mode & 0o777 == 0o600
    found = yaml.safe_load(path.read_text())
    assert found["clusters"][0]["cluster"]["server"] == f"https://{there.address}:6443"
    assert found["users"][0]["user"]["token"] == "s3cret"
    machine.run_all([File(PurePosixPath("/etc/kubernetes/admin.conf"), "s3cret: [", 0o600, secret=True)])
    with pytest.raises(UserError, match="is no kubeconfig") as caught:
        fetch_kubeconfig(site, tmp_path)
    assert "s3cret" not in str(caught.value)
