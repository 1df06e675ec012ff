"""A site of two machines, from bare Debian to a share and a registry, and through what happens to machines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from canaries import left_here, left_there, secrets_of
from lab import Lab
from lab_sites import LabSite, ended, start_flow, start_mlops

from infra.machines.host_keys import pin
from infra.site.engine import State
from infra.site.inventory import site_folder
from infra.site.lock import site_lock
from infra.site.steps.sshd import DROP_IN

pytestmark = pytest.mark.machine
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bare(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> LabSite:
    return LabSite(lab, tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def site(bare: LabSite) -> LabSite:
    """The site, provisioned by a run that was killed in the middle and by a second one."""
    process = start_mlops(bare.root, "site", "apply")
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if "storage: applying" in line:
            break
    time.sleep(2.5)  # in the middle of what apt does
    assert process.poll() is None, "".join(printed)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    half = bare.run(apply=False)
    assert half["storage", "storage"].state is State.DIFFERS
    outcomes = bare.run(apply=True)
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    return bare


def smb(site: LabSite, user: str, password: str, command: str) -> subprocess.CompletedProcess[str]:
    share = f"//{site.machines['storage'].address}/sambashare"
    environment = {**os.environ, "PASSWD": password}
    return subprocess.run(
        ["smbclient", share, f"--user={user}", f"--command={command}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def password(site: LabSite, name: str) -> str:
    return (site.home / f"{name}-password").read_text().strip()


def registry_client(site: LabSite) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=str(site.home / "site/authority/ca.crt"))
    return httpx.Client(base_url=f"https://{site.machines['registry'].address}:5000", verify=trusted)


def pushing_is_answered_by(client: httpx.Client, login: tuple[str, str], status: int) -> bool:
    """Whether a push is answered so within a while: the registry may be starting."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.post("/v2/tried/blobs/uploads/", auth=login).status_code == status:
                return True
        time.sleep(0.2)
    return False


def test_a_plan_says_what_it_would_do_and_why_and_does_nothing(bare: LabSite) -> None:
    code, said = ended(start_mlops(bare.root, "site", "plan"))
    assert code == 2
    assert "install samba smbclient nftables  (not installed)" in said
    assert "+    server min protocol = SMB3_11" in said
    assert "6 of 6 steps differ" in said or "4 of 6 steps differ" in said
    assert "samba" not in bare.machines["storage"].run("dpkg-query", "--show", "--showformat", "${Package} ")
    assert "begin: machines" not in bare.machines["registry"].run("cat", "/etc/hosts")


def test_a_run_killed_in_the_middle_is_completed_by_the_next_and_a_third_changes_nothing(site: LabSite) -> None:
    outcomes = site.run(apply=True)
    assert {item.state for item in outcomes.values()} == {State.FITS}
    code, said = ended(start_mlops(site.root, "site", "plan"))
    assert (code, said.rstrip().splitlines()[-1]) == (0, "Nothing differs.")


def test_the_share_serves_its_user_and_nobody_else(site: LabSite) -> None:
    secret = password(site, "share")
    assert smb(site, "alice", secret, "ls").returncode == 0
    assert smb(site, "alice", secret, "get .mlops-share /dev/null").returncode == 0
    assert "LOGON_FAILURE" in smb(site, "alice", "wrong", "ls").stdout
    assert smb(site, "guest", "", "ls").returncode != 0
    storage = site.machines["storage"]
    journal = storage.run("journalctl", "--quiet", "--unit", "smbd.service", "--output", "short-unix")
    # It never served what the package's own configuration lets it.
    assert float(journal.split()[0]) > float(storage.run("stat", "--format", "%.Y", "/etc/samba/smb.conf"))


def test_the_registry_speaks_tls_by_the_sites_ca_and_asks_for_the_login(site: LabSite) -> None:
    with registry_client(site) as client:
        assert client.get("/v2/").status_code == 401
        assert client.get("/v2/", auth=("mlops", "wrong")).status_code == 401
        login = ("mlops", password(site, "registry"))
        assert client.get("/v2/", auth=login).status_code == 200
        digest = push_blob(client, login, b"abc")
        assert client.get(f"/v2/tried/blobs/{digest}", auth=login).content == b"abc"


def push_blob(client: httpx.Client, login: tuple[str, str], data: bytes) -> str:
    opened = client.post("/v2/tried/blobs/uploads/", auth=login)
    assert opened.status_code == 202
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    pushed = client.put(f"{opened.headers['location']}&digest={digest}", content=data, auth=login)
    assert pushed.status_code == 201
    return digest


def test_the_weekly_clean_up_takes_what_no_image_needs_and_leaves_images(site: LabSite) -> None:
    machine = site.machines["registry"]
    login = ("mlops", password(site, "registry"))
    kind = "application/vnd.oci.image.manifest.v1+json"
    with registry_client(site) as client:
        used, unused = push_blob(client, login, b"{}"), push_blob(client, login, b"left by a push that was cut off")
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": used, "size": 2}
        manifests = []
        for note in ("first", "second"):  # the tag moves on to the second; the first is known by its digest only
            image = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}
            text = json.dumps({**image, "annotations": {"note": note}})
            put = client.put("/v2/tried/manifests/tag", content=text, headers={"content-type": kind}, auth=login)
            assert put.status_code == 201
            manifests.append(put.headers["docker-content-digest"])
        machine.run("systemctl", "start", "mlops-registry-clean.service")
        assert pushing_is_answered_by(client, login, 202)
        assert client.get(f"/v2/tried/blobs/{unused}", auth=login).status_code == 404
        assert client.get(f"/v2/tried/blobs/{used}", auth=login).content == b"{}"
        for manifest in manifests:
            found = client.get(f"/v2/tried/manifests/{manifest}", headers={"accept": kind}, auth=login)
            assert found.status_code == 200


def test_a_registry_that_crashes_is_back_by_itself(site: LabSite) -> None:
    machine = site.machines["registry"]
    for _ in range(7):  # more often than systemd's own limit of five
        machine.run("systemctl", "kill", "--signal=KILL", "docker-registry.service")
        time.sleep(0.2)
    deadline = time.monotonic() + 15
    while machine.run("systemctl", "show", "-p", "SubState", "--value", "docker-registry").strip() != "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_registry_above_its_limit_takes_no_more_and_goes_on_giving(site: LabSite) -> None:
    machine = site.machines["registry"]
    big = "/var/lib/docker-registry/too-much"
    machine.run("sed", "-i", "s/-gt 81920/-gt 1/", "/usr/local/sbin/mlops-registry-limit")
    machine.run("dd", "if=/dev/zero", f"of={big}", "bs=1M", "count=3", "status=none")
    machine.run("systemctl", "start", "mlops-registry-limit.service")
    login = ("mlops", password(site, "registry"))
    with registry_client(site) as client:
        assert pushing_is_answered_by(client, login, 405)
        assert client.get("/v2/", auth=login).status_code == 200
    # The script was changed by hand: that is drift, and the next run mends it.
    machine.run("rm", big)
    outcomes = site.run(apply=True)
    assert [change.what for change in outcomes["registry", "registry"].changes] == [
        "write /usr/local/sbin/mlops-registry-limit"
    ]
    machine.run("systemctl", "start", "mlops-registry-limit.service")
    with registry_client(site) as client:
        assert pushing_is_answered_by(client, login, 202)


def test_the_firewall_lets_only_the_sites_network_in(site: LabSite, lab: Lab) -> None:
    machine = site.machines["storage"]
    outside = lab.network.replace("10.77.", "10.78.")
    subprocess.run(["ip", "address", "add", f"{outside}.1/24", "dev", lab.bridge], check=True)
    machine.ip("route", "add", f"{outside}.0/24", "dev", "eth0")
    socket.create_connection((machine.address, 22), 2, (f"{outside}.1", 0)).close()
    socket.create_connection((machine.address, 445), 2).close()
    with pytest.raises(TimeoutError):
        socket.create_connection((machine.address, 445), 1, (f"{outside}.1", 0))


def test_nobody_logs_in_by_a_password(site: LabSite) -> None:
    machine = site.machines["storage"]
    machine.run("sh", "-c", "echo admin:known | chpasswd")
    said = machine.run("sshd", "-T")
    assert "passwordauthentication no" in said
    # What the server itself offers, to somebody without a key.
    options = (
        "-oBatchMode=yes",
        "-oPubkeyAuthentication=no",
        "-oStrictHostKeyChecking=no",
        "-oUserKnownHostsFile=/dev/null",
    )
    ssh = ("ssh", "-F/dev/null", "-v", *options, f"admin@{machine.address}", "true")
    tried = subprocess.run(ssh, capture_output=True, text=True, timeout=30, check=False)
    assert "Permission denied (publickey)." in tried.stderr
    # A file that the server cannot read is not left there to keep everybody out.
    machine.run("rm", str(DROP_IN.path))
    machine.run("sh", "-c", "echo nonsense >/etc/ssh/sshd_config.d/99-broken.conf")
    step = [item for item in site.steps() if (item.machine, item.name) == ("storage", "base")]
    error = site.run(apply=True, steps=step)["storage", "base"].error
    assert "nonsense" in str(error)
    assert not (machine.root / str(DROP_IN.path).lstrip("/")).exists()
    machine.run("rm", "/etc/ssh/sshd_config.d/99-broken.conf")
    assert site.run(apply=True, steps=step)["storage", "base"].state is State.CHANGED


def test_drift_is_found_and_mended(site: LabSite) -> None:
    machine = site.machines["storage"]
    machine.run("sed", "-i", "s/SMB3_11/NT1/", "/etc/samba/smb.conf")
    machine.run("chmod", "0777", "/srv/samba/sambashare")
    machine.run("systemctl", "disable", "--now", "smbd.service")
    machine.run("nft", "delete", "table", "inet", "mlops-samba")
    found = site.run(apply=False)["storage", "storage"]
    told = {change.what: change for change in found.changes}
    assert "    server min protocol = NT1" in told["write /etc/samba/smb.conf"].diff
    assert "is 2777 root sambashare" in told["make group, accounts and folders of the share"].why
    assert "start mlops-firewall-samba.service, smbd.service, now and at every boot" in told
    assert site.run(apply=True)["storage", "storage"].state is State.CHANGED
    assert site.run(apply=False)["storage", "storage"].state is State.FITS


def test_a_new_password_reaches_server_and_accounts(site: LabSite) -> None:
    old = password(site, "share")
    (site.home / "share-password").write_text("another one, with blanks\n")
    assert site.run(apply=True)["storage", "storage"].state is State.CHANGED
    assert smb(site, "alice", "another one, with blanks", "ls").returncode == 0
    assert "LOGON_FAILURE" in smb(site, "alice", old, "ls").stdout


def test_after_a_power_cut_everything_is_there_again(site: LabSite) -> None:
    (site.root / "kept").write_text("data\n")
    assert smb(site, "alice", password(site, "share"), f"put {site.root}/kept kept").returncode == 0
    for machine in site.machines.values():
        machine.cut_power()
    for machine in reversed(site.machines.values()):
        machine.boot()
    for machine in site.machines.values():
        machine.wait()
    deadline = time.monotonic() + 30
    while differing := [item for item in site.run(apply=False).values() if item.state is not State.FITS]:
        assert time.monotonic() < deadline, differing
    assert smb(site, "alice", password(site, "share"), "get kept /dev/null").returncode == 0


def test_a_check_in_prefect_mends_what_is_safe_and_fails_with_the_rest(site: LabSite) -> None:
    """With Prefect's own database in the checkout, where the search for secrets below looks at it, too."""
    machine = site.machines["storage"]
    machine.run("systemctl", "stop", "smbd.service")
    machine.run("systemd-run", "--quiet", "--unit=broken", "false")
    subprocess.run(["git", "init", "--quiet", str(site.root)], check=True)
    code, said = ended(start_flow(site.root, "check_site"))
    assert code == 1
    assert "storage: storage: changed start smbd.service, now and at every boot" in said
    assert "storage, step health: mend broken.service: it has failed" in said
    assert "look why: journalctl -b -u broken.service" in said
    machine.run("systemctl", "reset-failed", "broken.service")
    code, said = ended(start_flow(site.root, "provision_site"))
    assert (code, "Finished in state Completed()" in said) == (0, True)


def test_two_runs_at_once_are_refused(site: LabSite) -> None:
    with site_lock(site_folder(site.home)):
        code, said = ended(start_mlops(site.root, "site", "apply"))
        assert code == 1
        assert f"process {os.getpid()} changes the site now" in said
        assert ended(start_mlops(site.root, "site", "plan"))[0] == 0


def test_a_machine_is_trusted_by_its_fingerprint_only(site: LabSite) -> None:
    folder = site_folder(site.home)
    key = site.machines["registry"].host_key
    (folder / "known_hosts").write_text("")
    outcome = site.run(apply=False)["registry", "base"]
    assert "mlops site trust registry" in str(outcome.error)
    shown = str(outcome.error).partition("SHA256:")[2].split(";")[0].split()[0].rstrip(";,")
    code, said = ended(start_mlops(site.root, "site", "trust", "registry", "--fingerprint", "SHA256:other"))
    assert code == 1
    assert "shows none with SHA256:other" in said
    assert ended(start_mlops(site.root, "site", "trust", "registry", "--fingerprint", f"SHA256:{shown}"))[0] == 0
    assert site.run(apply=False)["registry", "base"].state is State.FITS
    pin(folder, "storage", [site.machines["storage"].host_key])
    pin(folder, "registry", [key])


def test_machines_that_moved_or_are_off_are_told_together(site: LabSite, lab: Lab) -> None:
    machine = site.machines["storage"]
    moved = f"{lab.network}.77"
    machine.ip("address", "delete", f"{machine.address}/24", "dev", "eth0")
    machine.ip("address", "add", f"{moved}/24", "dev", "eth0")
    site.machines["registry"].disconnect()
    try:
        code, said = ended(start_mlops(site.root, "site", "plan"))
    finally:
        machine.ip("address", "delete", f"{moved}/24", "dev", "eth0")
        machine.ip("address", "add", f"{machine.address}/24", "dev", "eth0")
        site.machines["registry"].connect()
    assert code == 1
    assert "2 errors:" in said
    assert f"storage: does not answer at its address, but at {moved}" in said
    assert f"write `address: {moved}` at hosts.storage" in said
    assert f"registry: {site.machines['registry'].address}, port 22, " in said
    assert "Traceback" not in said


def test_no_secret_is_anywhere_but_where_it_belongs(site: LabSite) -> None:
    """Last: everything above has logged, and left what it leaves."""
    secrets = secrets_of(site)
    assert {"share-password", "registry-password", "ca.key", "registry.key"} <= {path.name for path in secrets}
    assert left_here(site, secrets) == set()
    for machine in site.machines.values():
        machine.run("journalctl", "--sync")
        for path, secret in secrets.items():
            belongs = {"/etc/docker/registry/tls.key"} if path.name == "registry.key" else set()
            assert left_there(machine, secret) <= belongs, path.name
