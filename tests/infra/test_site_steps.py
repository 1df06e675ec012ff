"""Steps as pure functions: readings of a machine in, changes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from infra.machines.commands import Command, File, Removal
from infra.samba.client import Mount, mount_options, render_files
from infra.samba.server import Server
from infra.site.facts import Fact, Reading, facts_script, readings
from infra.site.reading import (
    MARKERS,
    file_changes,
    file_fact,
    package_changes,
    packages_fact,
    unit_changes,
    unit_fact,
    units_changes,
)
from infra.site.step import Change, Step
from infra.site.steps.base import BEGIN, END, base_step, hosts_text
from infra.site.steps.health import health_step
from infra.site.steps.mount_modules import mount_modules_facts
from infra.site.steps.mounts import mount_step
from infra.site.steps.sshd import DROP_IN, sshd_changes
from infra.site.steps.storage import storage_step

RUNS = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMarked=1\n"
FILE = File(PurePosixPath("/etc/a"), "one\ntwo\n")
SECRET = File(PurePosixPath("/etc/b"), "hidden\n", 0o600, secret=True)


def as_read(file: File, text: str | None = None, head: str | None = None) -> Reading:
    text = file.text if text is None else text
    digest = hashlib.sha256(text.encode()).hexdigest()
    shown = "" if file.secret else text
    return Reading(0, f"{head or f'{file.mode:o} {file.group}'}\n{digest}  -\n{shown}")


def changes(step: Step, known: Mapping[Fact, Reading]) -> list[Change]:
    """What a step wants where all that is not told fits."""
    assert set(known) <= set(step.facts)
    return list(step.changes({fact: known.get(fact, Reading(0, "")) for fact in step.facts}))


def test_answers_are_matched_to_questions() -> None:
    asked = [Fact(("echo", "it's")), Fact(("cat",), stdin="secret")]
    script = facts_script(asked)
    assert "secret" not in script
    assert "secret" not in repr(asked)

    def answers(output: str) -> dict[Fact, Reading]:
        return dict(zip(asked, readings(len(asked), output), strict=True))

    # "it's\n" with status 0; nothing with status 1
    assert answers("0:aXQncwoKMA==\n1:CjE=\n") == {asked[0]: Reading(0, "it's\n"), asked[1]: Reading(1)}
    with pytest.raises(ValueError, match="1 of 2 questions"):
        answers("0:aXQncwoKMA==\n")
    with pytest.raises(ValueError, match="line 1 answers no question"):
        answers("bash: warning\n")


def test_a_file_as_wanted_is_no_change() -> None:
    assert file_changes(FILE, {file_fact(FILE): as_read(FILE)}) == []
    assert file_changes(SECRET, {file_fact(SECRET): as_read(SECRET)}) == []


@pytest.mark.parametrize(
    ("reading", "what", "why"),
    [
        (Reading(1, "stat: cannot statx '/etc/a'"), "write /etc/a", "is not there"),
        (as_read(FILE, "one\n"), "write /etc/a", "its text is another one"),
        (as_read(FILE, head="666 root"), "set /etc/a to 0644 root", "is 666 root"),
        (as_read(FILE, head="644 users"), "set /etc/a to 0644 root", "is 644 users"),
    ],
)
def test_a_file_that_differs_is_written(reading: Reading, what: str, why: str) -> None:
    (change,) = file_changes(FILE, {file_fact(FILE): reading})
    assert (change.what, change.why, change.actions) == (what, why, (FILE,))


def test_the_lines_of_a_file_are_shown_unless_it_is_secret() -> None:
    (shown,) = file_changes(FILE, {file_fact(FILE): as_read(FILE, "one\n")})
    assert shown.diff.splitlines()[2:] == ["@@ -1 +1,2 @@", " one", "+two"]
    (hidden,) = file_changes(SECRET, {file_fact(SECRET): as_read(SECRET, "old\n")})
    assert hidden.diff == ""
    assert "hidden" not in repr(hidden)


def test_a_unit_is_marked_before_its_file_is_written() -> None:
    (change,) = file_changes(FILE, {file_fact(FILE): Reading(1, "")}, restarts=("a.service",))
    assert change.actions == (replace(FILE, marks=(PurePosixPath("/run/mlops-site/a.service"),)),)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (RUNS, None),
        (RUNS.replace("Marked=1", "Marked=0"), "what it reads has changed"),
        (RUNS.replace("Reload=no", "Reload=yes"), "what it reads has changed"),
        (RUNS.replace("=enabled", "=disabled"), "is disabled, so that it would not come back after a reboot"),
        (RUNS.replace("=active", "=failed"), "is failed"),
        ("LoadState=not-found\n", "is not there, so that it would not come back after a reboot"),
    ],
)
def test_a_unit_runs_now_and_after_every_boot(state: str, why: str | None) -> None:
    found = unit_changes("a.service", {unit_fact("a.service"): Reading(0, state)})
    assert [change.why for change in found] == ([] if why is None else [why])
    if found:
        assert found[0].actions[-1] == Removal(PurePosixPath("/run/mlops-site/a.service"))


def test_units_are_started_together_and_systemd_reads_them_once() -> None:
    states = {"a.service": RUNS, "b.timer": RUNS, "c.service": RUNS.replace("=active", "=failed")}
    facts = {unit_fact(name): Reading(0, state) for name, state in states.items()}
    (change,) = units_changes({"a.service": True, "b.timer": False, "c.service": False}, facts)
    assert change.what == "start a.service, c.service, now and at every boot"
    assert change.why == "a.service: what it reads has changed; c.service: is failed"
    enable, *rest = change.actions
    assert isinstance(enable, Command)
    assert enable.argv[-2:] == ("a.service", "c.service")
    assert enable.argv[2].count("daemon-reload") == 1
    assert rest == [
        action
        for name in ("a.service", "c.service")
        for action in (Command(("systemctl", "restart", name)), Removal(MARKERS / name))
    ]
    assert units_changes({"b.timer": False}, facts) == []


def test_only_missing_packages_are_installed() -> None:
    names = ("samba", "smbclient", "nftables")
    said = "dpkg-query: no packages found matching nftables\nsamba ii  2:4.17\nsmbclient rc  2:4.17\n"
    (change,) = package_changes(names, {packages_fact(names): Reading(1, said)})
    assert change.what == "install smbclient nftables"
    last = change.actions[-1]
    assert isinstance(last, Command)
    assert last.argv[-3:] == ("install", "smbclient", "nftables")


def test_names_of_the_site_are_one_block_of_etc_hosts() -> None:
    addresses = {"one": "192.168.10.1", "two": "192.168.10.2"}
    block = f"{BEGIN}\n192.168.10.1 one\n192.168.10.2 two\n{END}\n"
    assert hosts_text("127.0.0.1 localhost\n", addresses) == "127.0.0.1 localhost\n" + block
    there = f"127.0.0.1 localhost\n{BEGIN}\n192.168.10.9 one\n{END}\n10.0.0.1 printer\n"
    assert hosts_text(there, addresses) == f"127.0.0.1 localhost\n{block}10.0.0.1 printer\n"
    assert hosts_text(hosts_text(there, addresses), addresses) == hosts_text(there, addresses)
    cut_off = f"{BEGIN}\n10.0.0.1 printer\n"
    assert hosts_text(cut_off, addresses) == f"10.0.0.1 printer\n{block}"


BY_KEY_ONLY = {
    file_fact(DROP_IN): as_read(DROP_IN),
    unit_fact("ssh.service"): Reading(0, RUNS),
    Fact(("sshd", "-T")): Reading(
        0,
        "port 22\npermitrootlogin without-password\npasswordauthentication no\n"
        "kbdinteractiveauthentication no\npermitemptypasswords no\n",
    ),
}


def sshd_found(known: Mapping[Fact, Reading]) -> list[Change]:
    return list(sshd_changes({**BY_KEY_ONLY, **known}))


def test_the_ssh_server_takes_no_passwords_and_is_reloaded_only_by_a_file_that_it_can_read() -> None:
    assert sshd_found({}) == []
    write, reload = sshd_found({file_fact(DROP_IN): Reading(1)})
    assert write.actions == (replace(DROP_IN, marks=(MARKERS / "ssh.service",)),)
    trial, reloads, _ = reload.actions
    assert isinstance(trial, Command)
    assert isinstance(reloads, Command)
    assert trial.argv[-1].startswith("sshd -t || { rm -f /etc/ssh/sshd_config.d/10-mlops.conf")
    assert "reload" in reloads.argv[1]
    # The run before was killed between file and reload.
    marked = RUNS.replace("Marked=1", "Marked=0")
    assert [change.what for change in sshd_found({unit_fact("ssh.service"): Reading(0, marked)})] == [reload.what]


def test_an_ssh_server_that_goes_by_another_file_is_left_to_people() -> None:
    said = Reading(
        0, BY_KEY_ONLY[Fact(("sshd", "-T"))].text.replace("passwordauthentication no", "passwordauthentication yes")
    )
    (change,) = sshd_found({Fact(("sshd", "-T")): said})
    assert "passwordauthentication yes" in change.why
    assert "Include" in change.by_hand
    assert not change.actions


def test_a_container_has_the_clock_of_its_host() -> None:
    step = base_step("one", {"one": "192.168.10.1"})
    known = {
        Fact(("hostname",)): Reading(0, "one\n"),
        Fact(("cat", "/etc/hosts")): Reading(0, hosts_text("", {"one": "192.168.10.1"})),
        packages_fact(("ca-certificates", "curl", "nftables")): Reading(
            0, "ca-certificates ii  1\ncurl ii  1\nnftables ii  1\n"
        ),
        **BY_KEY_ONLY,
    }
    assert changes(step, known) == []
    on_its_own = known | {Fact(("systemd-detect-virt", "--container", "--quiet")): Reading(1)}
    assert [change.what for change in changes(step, on_its_own)] == [
        "install ca-certificates curl nftables chrony",
        "start chrony.service, now and at every boot",
    ]


MOUNT = Mount("//192.168.10.40/data", PurePosixPath("/mnt/data"), "alice", "secret of the share")


def mounted(**changed: Reading) -> tuple[Step, dict[Fact, Reading]]:
    step = mount_step("one", MOUNT, "data", ())
    known = {packages_fact(("cifs-utils",)): Reading(0, "cifs-utils ii  1\n")}
    for fact in step.facts:
        if "ActiveState" in " ".join(fact.argv):
            known[fact] = changed.get("unit", Reading(0, RUNS))
        elif fact.argv[-2:] == ("/mnt/data/.mlops-share", "mnt-data.mount"):
            known[fact] = changed.get("sentinel", Reading(0, '{"share": "data", "format": 1}\n'))
    for file in render_files(MOUNT):
        known[file_fact(file)] = as_read(file)
    return step, known


def test_a_mounted_share_is_left_alone() -> None:
    assert changes(*mounted()) == []


def test_modules_that_a_kernel_comes_without_are_installed_before_the_share_is_mounted() -> None:
    lacking, container = mount_modules_facts()
    step, known = mounted(sentinel=Reading(1, "mount error(79): Can not access a needed shared library\n"))
    known |= {lacking: Reading(0, "6.8.0-31-generic\nnls_utf8\n"), container: Reading(1)}
    install, mount = changes(step, known)
    assert (install.what, install.why) == ("install linux-modules-extra-6.8.0-31-generic", "the kernel has no nls_utf8")
    assert mount.what.startswith("mount ")
    # A container's kernel is its host's; a kernel that has all of them is left alone.
    assert changes(step, known | {container: Reading(0)}) == [mount]
    assert changes(step, known | {lacking: Reading(0, "6.8.0-31-generic\n")}) == [mount]


@pytest.mark.parametrize(
    "sentinel", [Reading(1, "mount error(13): Permission denied\n"), Reading(0, '{"share": "other", "format": 1}\n')]
)
def test_a_share_without_its_sentinel_is_mounted_again(sentinel: Reading) -> None:
    (change,) = changes(*mounted(sentinel=sentinel))
    assert change.what == "mount //192.168.10.40/data at /mnt/data"
    assert sentinel.text.strip() in change.why
    assert Command(("systemctl", "restart", "mnt-data.automount")) in change.actions


MARKED = Reading(0, RUNS.replace("Marked=1", "Marked=0"))
OVER = "mount //192.168.10.40/data over what is mounted at /mnt/data"
ANEW = ["unmount /mnt/data", "start mnt-data.automount, now and at every boot"]


def with_another(ending: str) -> tuple[Step, dict[Fact, Reading]]:
    """Of a machine where the file with this ending has another text."""
    step, known = mounted()
    file = next(fact for fact in known if fact.argv[-1].endswith(ending) and "sha256sum" in fact.argv[2])
    return step, known | {file: Reading(0, "600 root\nother  -\n")}


def test_by_a_new_password_the_share_is_mounted_over_what_containers_have() -> None:
    wanted = changes(*with_another(".credentials"))
    assert [change.what for change in wanted] == ["write /etc/mlops/mnt-data.credentials", OVER]
    (written,), (over, begun) = (change.actions for change in wanted)
    # Whoever is killed between the two begins again with the second.
    assert isinstance(written, File)
    assert written.marks == (MARKERS / "mnt-data.mount",)
    assert begun == Removal(MARKERS / "mnt-data.mount")
    assert isinstance(over, Command)
    assert {",".join(mount_options(MOUNT)), "//192.168.10.40/data", "/mnt/data"} <= set(over.argv)
    assert "secret of the share" not in repr(wanted)


def test_a_password_that_was_written_and_no_more_is_mounted_by() -> None:
    step, known = mounted()
    assert [change.what for change in changes(step, known | {unit_fact("mnt-data.mount"): MARKED})] == [OVER]


def test_other_options_of_the_share_take_a_new_mount() -> None:
    wanted = [change.what for change in changes(*with_another("mnt-data.mount"))]
    assert wanted == ["write /etc/systemd/system/mnt-data.mount", *ANEW]


def test_mounts_over_each_other_are_told_and_left_to_people() -> None:
    step, known = mounted()
    layers = step.facts[-1]
    assert layers.argv[-1] == "/mnt/data"
    assert changes(step, known | {layers: Reading(0, "1\n")}) == []
    (told,) = changes(step, known | {layers: Reading(0, "2\n")})
    assert told.only_told
    assert told.why.startswith("2 mounts lie over each other at /mnt/data since its password changed")


ALICE = Server(users=("alice",), networks=("192.168.10.0/24",))


def shared(**known: Reading) -> list[Change]:
    """What step ``storage`` wants of a machine without Samba, or with other readings of its package and unit."""
    step = storage_step("one", ALICE, {"alice": "secret of the share"}, ())
    absent = {fact: Reading(1) for fact in step.facts}
    told = {
        packages_fact(("samba", "smbclient", "nftables")): known.get("packages", Reading(1, "nftables ii  1\n")),
        unit_fact("smbd.service"): known.get("unit", Reading(0, "LoadState=not-found\n")),
    }
    return list(step.changes(absent | told))


def test_samba_is_configured_before_its_package_starts_it_and_is_not_started_twice() -> None:
    wanted = shared()
    names = [change.what for change in wanted]
    assert names.index("write /etc/samba/smb.conf") < names.index("install samba smbclient")
    assert Command(("systemctl", "start", "smbd.service")) in wanted[-1].actions
    assert "secret of the share" not in repr(wanted)


def test_samba_that_may_run_by_another_configuration_is_restarted() -> None:
    half = shared(
        packages=Reading(0, "samba iF  2:4.17\nsmbclient ii  2:4.17\nnftables ii  1\n"), unit=Reading(0, RUNS)
    )
    there = shared(
        packages=Reading(0, "samba ii  2:4.17\nsmbclient ii  2:4.17\nnftables ii  1\n"), unit=Reading(0, RUNS)
    )
    for wanted in (half, there):
        assert "write /etc/samba/smb.conf" in [change.what for change in wanted]
        assert Command(("systemctl", "restart", "smbd.service")) in wanted[-1].actions


def test_health_is_told_and_left_to_people() -> None:
    step = health_step("one", ())
    disks, failed, clock, contained = step.facts
    known = {
        disks: Reading(0, "Use% IUse% Mounted on\n 91%   12% /\n 10%   97% /srv\n  5%     - /boot/efi\n"),
        failed: Reading(0, "smbd.service loaded failed failed Samba SMB Daemon\n"),
        clock: Reading(0, "no\n"),
        contained: Reading(1),
    }
    found = changes(step, known)
    assert [(change.what, change.why) for change in found] == [
        ("make room in /", "91% of its space are used"),
        ("make room in /srv", "97% of its inodes are used"),
        ("mend smbd.service", "it has failed"),
        ("set the clock", "it is not in step with any time server: certificates and logins may be refused"),
    ]
    assert all(change.by_hand and not change.actions for change in found)
