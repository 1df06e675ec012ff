"""The image, built by podman and by buildah from a small lock with the very Dockerfile, and pushed to a real registry.

All needs root: the machines that run the tests have no user namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import images
import package_index
import pytest
from base_images import ContainerTools
from certificates import Authority
from checkouts import git
from package_index import PackageIndex
from registries import PASSWORD, USER, DockerRegistry
from stack_fixtures import client_variables

from configs.problems import UserError
from infra.image.builders import find_builder
from infra.image.making import open_making
from infra.image.plan import make_plan
from infra.image.record import ImageRecord, current_image, read_records
from infra.registry.problems import Reason, RegistryError
from infra.stack.state import Stack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="building images in a container needs root")


@dataclass
class Place:
    """A checkout with its registry, its package index and its container tools.

    Attributes:
        tools: what builds. node: what has none of its images, and pulls them.
        said: every line that making images said.
    """

    folder: Path
    checkout: Path
    tools: ContainerTools
    node: ContainerTools
    registry: DockerRegistry
    index: PackageIndex
    site: dict[str, Any]
    said: list[str]

    @property
    def home(self) -> Path:
        return self.checkout / ".mlops"

    def settle(self, section: str, **values: object) -> None:
        """Change a section of the site, and commit it."""
        self.site[section].update(values)
        images.write_site(self.checkout, self.site)
        git(self.checkout, "commit", "--quiet", "--all", "-m", f"Another {section}")

    def make(self, *, dirty: bool = False) -> tuple[ImageRecord, bool]:
        """Do as the command does; return the record, and whether anything was built."""
        with open_making(self.checkout, self.home, dirty=dirty) as making:
            found = making.find()
            if not found:
                making.build(self.said.append)
                making.push(self.said.append)
            return making.record(), not found

    def inside(self, image: str, *command: str) -> str:
        """Run a command in an image as its user, and return what it prints."""
        container = self.node.run("buildah", "from", "--pull-never", image).stdout.strip()
        try:
            return self.node.run("buildah", "run", "--isolation", "chroot", container, "--", *command).stdout.strip()
        finally:
            self.node.run("buildah", "rm", container)

    def pull(self, image: str) -> None:
        """Pull an image from the registry as a node would: with login and CA, by its digest."""
        folder = self.folder / "pull"
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(Path(self.site["registry"]["ca"]).read_bytes())
        login = ["--creds", f"{USER}:{PASSWORD}", "--cert-dir", str(folder)]
        self.node.run("podman", "pull", *login, image)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("image")
    tools, node = ContainerTools(folder / "containers"), ContainerTools(folder / "node")
    authority = Authority(folder / "ca")
    index = PackageIndex(folder / "index", authority.issue("127.0.0.1"))
    usual = dict(os.environ)
    os.environ.update(tools.environment)
    try:
        with DockerRegistry(folder / "registry", authority.issue("127.0.0.1")) as registry:
            builder = {"builder": "podman", "base": tools.make_base()}
            site = images.make_site(registry, authority.pem, folder, index, **builder)
            checkout = images.make_checkout(folder / "checkout", images.fill(index), site)
            yield Place(folder, checkout, tools, node, registry, index, site, [])
    finally:
        index.close()
        tools.remove()
        node.remove()
        os.environ.clear()
        os.environ.update(usual)


@contextmanager
def watched() -> Iterator[set[str]]:
    """Collect the arguments and variables of all processes that run meanwhile, besides this one and its parents."""
    seen: set[str] = set()
    before = {entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and entry.name not in before:
                    try:
                        seen.add((entry / "cmdline").read_text(errors="replace"))
                        seen.add((entry / "environ").read_text(errors="replace"))
                    except OSError:
                        continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def holds(folder: Path, text: str) -> list[Path]:
    """Return the files below a folder that hold a text."""
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", text, str(folder)],
        capture_output=True,
        text=True,
    )
    return [Path(line) for line in found.stdout.splitlines()]


def test_podman_builds_what_is_committed_and_pushes_it_once(place: Place) -> None:
    (place.checkout / "junk.txt").write_text("not tracked")
    with watched() as processes:
        record, built = place.make()
    assert built
    assert any("podman" in arguments and "push" in arguments for arguments in processes)
    for secret in (PASSWORD, package_index.PASSWORD):
        assert not any(secret in arguments for arguments in processes)
        assert secret not in "\n".join(place.said)
        assert not holds(place.checkout, secret)
    assert read_records(place.home) == [record]
    assert record.reference.startswith(f"{place.registry.address}/mlops/test@sha256:")
    assert (record.commit, record.dirty) == (git(place.checkout, "rev-parse", "HEAD"), False)
    again, built = place.make()
    assert not built
    assert again.reference == record.reference
    assert current_image(place.home) == again

    place.pull(record.reference)
    about = json.loads(place.node.run("podman", "inspect", record.reference).stdout)[0]
    assert about["User"] == "10001:10001"
    assert about["Labels"]["org.opencontainers.image.revision"] == record.commit
    assert about["Labels"]["mlops.requirements.lock.sha256"] == record.lock_sha256
    checks = (
        "import importlib.util as u, json, os, pathlib, tiny, torch;"
        "w = lambda p: os.access(p, os.W_OK);"
        "has = {n: bool(u.find_spec(n)) for n in ('pytest', 'pluggish', 'pip', 'hatchling', 'dvc_smb', 'configs')};"
        "files = sorted(p.name for p in pathlib.Path().iterdir());"
        "told = json.load(open('image.json'));"
        "here = [os.getuid(), os.getgid(), os.getcwd(), os.path.expanduser('~'), tiny.ANSWER, torch.VARIANT];"
        "print(json.dumps([here, [w('.'), w('configs'), w('.venv'), w('/')], has, files, told]))"
    )
    here, writable, has, files, told = json.loads(place.inside(record.reference, "python", "-c", checks))
    assert here == [10001, 10001, "/opt/mlops", "/home/mlops", 42, "cuda"]
    assert writable == [True, True, False, False]
    assert {name for name, there in has.items() if there} == {"dvc_smb", "configs"}
    assert {"dvc.yaml", "flows", "image.json", ".dvc", ".venv"} <= set(files)
    assert not {"junk.txt", ".git", "tests"} & set(files)
    built_at = told.pop("built")
    assert built_at <= record.when
    subject, date = git(place.checkout, "log", "-1", "--format=%s%n%cI").splitlines()
    assert told == {
        "commit": record.commit,
        "branch": "main",
        "subject": subject,
        "date": date,
        "diff": "",
        "unknown": [],
        "lock_sha256": record.lock_sha256,
    }
    mounted = Path(place.node.run("podman", "image", "mount", record.reference).stdout.strip())
    assert (mounted / "opt/mlops/image.json").is_file()
    for secret in (PASSWORD, package_index.PASSWORD):
        assert not holds(mounted, secret)
    place.node.run("podman", "image", "umount", record.reference)
    assert not holds(place.registry.storage, package_index.PASSWORD)


def test_buildah_builds_without_cuda(place: Place) -> None:
    place.settle("image", builder="buildah", torch="cpu")
    record, built = place.make()
    assert built
    assert record.torch == "cpu"
    place.pull(record.reference)
    checks = "import importlib.util as u, tiny, torch; print(torch.VARIANT, u.find_spec('nvidia_cublas'), tiny.ANSWER)"
    assert place.inside(record.reference, "python", "-c", checks) == "cpu None 42"
    assert current_image(place.home) == record


def test_a_dirty_checkout_is_refused_unless_the_flow_is_asked_for_it(place: Place, stack: Stack) -> None:
    train = place.checkout / "ml" / "train.py"
    clean = train.read_text()
    train.write_text(f"{clean}# tried something\n")
    (place.checkout / "ml" / "new.py").write_text("")
    try:
        with pytest.raises(UserError) as caught:
            place.make()
        assert "      ml/train.py\n      ml/new.py (not tracked)" in str(caught.value)
        assert "--dirty" in str(caught.value)
        flow = "from flows.build_image import build_image; build_image(dirty=True)"
        ran = subprocess.run(
            [sys.executable, "-c", flow],
            cwd=place.checkout,
            env={**client_variables(stack), **place.tools.environment, "MLOPS_HOME": str(place.home)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        said = ran.stdout + ran.stderr
        assert ran.returncode == 0, said
        record = current_image(place.home)
        assert record.dirty
        assert "-dirty-" in record.tag
        assert "not in the image, as git does not track it: ml/new.py" in said
        assert f"deployments now use {record.reference}" in said
        assert PASSWORD not in said
        script = (
            "import json, os; told = json.load(open('image.json'));"
            "print(told['diff'], os.path.exists('ml/new.py'), open('ml/train.py').read()[-18:])"
        )
        place.pull(record.reference)
        told = place.inside(record.reference, "python", "-c", script)
        assert "+# tried something" in told
        assert told.endswith("False # tried something")
        train.write_text(f"{clean}# tried something else\n")
        assert make_plan(place.checkout, dirty=True).identity != record.identity
    finally:
        train.write_text(clean)
        (place.checkout / "ml" / "new.py").unlink()


def test_only_what_goes_into_an_image_makes_it_another(place: Place) -> None:
    plan = make_plan(place.checkout)
    (place.checkout / "notes.txt").write_text("not tracked, no code")
    (place.checkout / "reports" / "latest.md").parent.mkdir(exist_ok=True)
    assert make_plan(place.checkout).identity == plan.identity
    (place.checkout / "configs" / "site.yaml").touch()
    assert make_plan(place.checkout).identity == plan.identity
    place.settle("image", torch="cuda")
    assert make_plan(place.checkout).identity != plan.identity


def test_a_registry_that_refuses_is_told_before_anything_is_built(place: Place) -> None:
    password = Path(place.site["registry"]["password"]["file"])
    said = len(place.said)
    password.write_text("wrong")
    try:
        with pytest.raises(RegistryError) as caught:
            place.make()
    finally:
        password.write_text(PASSWORD)
    assert caught.value.reason is Reason.LOGIN
    assert len(place.said) == said
    assert len(caught.value.problems) == 1


def test_no_builder_says_of_each_why(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place.folder))
    with pytest.raises(UserError, match="docker is not installed; podman is not installed; buildah is not installed"):
        find_builder(None)
    with pytest.raises(UserError, match="podman is not installed"):
        find_builder("podman")
