"""Load for a registry: images pushed and pulled side by side, cut off in the middle, while somebody kills the server.

An image counts as kept once its manifest was acknowledged. What a clean-up takes before that, as blobs of an image that
is still on its way, is pushed again, as container tools do.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIZES = (1_000, 30_000, 400_000, 3_000_000)
CHUNK = 256_000
GIVE_UP_S = 60
"""A push or pull that is cut or refused for longer, again and again, is given up: nothing was acknowledged."""
VERIFY_S = 300


class RefusedError(Exception):
    """The registry said no, as it may for a while: it is being killed, cleaned, or above its limit."""


@dataclass
class Image:
    """A pushed image: its manifest's digest and the digests of its blobs."""

    name: str
    manifest: str
    blobs: tuple[str, ...]


@dataclass
class Soak:
    """The load, and what came of it."""

    url: str
    login: tuple[str, str]
    trusted: ssl.SSLContext
    kept: list[Image] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, seconds: float, pushers: int, pullers: int) -> None:
        """Push, pull and cut off for that long, side by side."""
        until = time.monotonic() + seconds
        jobs = [self._pusher] * pushers + [self._puller] * pullers
        threads = [threading.Thread(target=job, args=(until, random.Random(seed))) for seed, job in enumerate(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def verify(self) -> None:
        """Pull every image that was acknowledged."""
        with self._client() as client:
            for image in self.kept:
                if not self._again(lambda image=image: self._pull(client, image), VERIFY_S):
                    self.fail(f"{image.manifest} was acknowledged and cannot be pulled")

    def _pusher(self, until: float, chance: random.Random) -> None:
        with self._client() as client:
            while time.monotonic() < until:
                if chance.random() < 0.2:
                    with contextlib.suppress(OSError, httpx.HTTPError, RefusedError):
                        self._cut_off(client, chance)
                else:
                    config = json.dumps({"architecture": "amd64", "os": "linux", "made": chance.random()}).encode()
                    blobs = [config, *(chance.randbytes(chance.choice(SIZES)) for _ in range(chance.randint(1, 3)))]
                    name = f"team/image{chance.randrange(4)}"
                    there: dict[int, str] = {}  # what an attempt has brought there is not sent again by the next
                    self._again(lambda n=name, b=blobs, t=there: self._push(client, n, b, t, chance), GIVE_UP_S)

    def _puller(self, until: float, chance: random.Random) -> None:
        with self._client() as client:
            while time.monotonic() < until:
                with self._lock:
                    image = chance.choice(self.kept) if self.kept else None
                if image is None:
                    time.sleep(0.1)
                else:
                    self._again(lambda image=image: self._pull(client, image), GIVE_UP_S)

    def _again(self, work: Callable[[], None], limit_s: float) -> bool:
        """Work until it succeeds; return whether it did."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                work()
            except (httpx.TransportError, RefusedError):
                self.count("tried again")
                if time.monotonic() > deadline:
                    self.count("given up")
                    return False
                time.sleep(0.3)
            else:
                return True

    def _push(
        self, client: httpx.Client, name: str, blobs: list[bytes], there: dict[int, str], chance: random.Random
    ) -> None:
        """Push an image whose first blob is its configuration; ``there``: digests by index, of those that are there."""
        for index, data in enumerate(blobs):
            if index not in there:
                there[index] = self._push_blob(client, name, data, in_parts=chance.random() < 0.5)
        digests = [there[index] for index in range(len(blobs))]
        kinds = ["application/vnd.oci.image.config.v1+json"] + ["application/vnd.oci.image.layer.v1.tar"] * len(blobs)
        parts = [
            {"mediaType": kind, "digest": digest, "size": len(data)}
            for kind, digest, data in zip(kinds, digests, blobs, strict=False)
        ]
        image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        text = json.dumps(image).encode()
        answer = client.put(
            f"/v2/{name}/manifests/tag{chance.randrange(5)}", content=text, headers={"content-type": MANIFEST}
        )
        if answer.status_code in (400, 404):
            there.clear()  # a clean-up took the blobs
        self._expect(answer, 201)
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        if answer.headers["docker-content-digest"] != digest:
            self.fail(f"manifest {digest} was taken for {answer.headers['docker-content-digest']}")
        with self._lock:
            self.kept.append(Image(name, digest, tuple(digests)))
        self.count("images pushed")

    def _push_blob(self, client: httpx.Client, name: str, data: bytes, *, in_parts: bool) -> str:
        place = self._open(client, name)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        rest = data
        if in_parts:
            for start in range(0, len(data), CHUNK):
                part = data[start : start + CHUNK]
                headers = {
                    "content-range": f"{start}-{start + len(part) - 1}",
                    "content-type": "application/octet-stream",
                }
                sent = client.patch(place, content=part, headers=headers)
                self._expect(sent, 202)
                place = sent.headers["location"]
            rest = b""
        self._expect(client.put(f"{place}&digest={digest}", content=rest), 201)
        self.count("blobs pushed")
        return digest

    def _open(self, client: httpx.Client, name: str) -> str:
        opened = client.post(f"/v2/{name}/blobs/uploads/")
        self._expect(opened, 202)
        return str(opened.headers["location"])

    def _cut_off(self, client: httpx.Client, chance: random.Random) -> None:
        """Send half a blob, and go; or a whole one under another's name, which must be refused."""
        place = self._open(client, "team/cut")
        data = chance.randbytes(400_000)
        if chance.random() < 0.3:
            answer = client.put(f"{place}&digest=sha256:{'0' * 64}", content=data)
            if answer.status_code == 201:
                self.fail("a blob was taken under another one's digest")
            return
        parts = urlsplit(place)
        basic = base64.b64encode(":".join(self.login).encode()).decode()
        head = f"PUT {parts.path}?{parts.query}&digest=sha256:{hashlib.sha256(data).hexdigest()} HTTP/1.1\r\n"
        head += f"Host: {parts.netloc}\r\nAuthorization: Basic {basic}\r\nContent-Length: {len(data)}\r\n\r\n"
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), 5) as plain,
            self.trusted.wrap_socket(plain, server_hostname=parts.hostname) as channel,
        ):
            channel.sendall(head.encode() + data[: len(data) // 2])
        self.count("pushes cut off")

    def _pull(self, client: httpx.Client, image: Image) -> None:
        answer = client.get(f"/v2/{image.name}/manifests/{image.manifest}", headers={"accept": MANIFEST})
        self._check(answer, image.manifest)
        for digest in image.blobs:
            self._check(client.get(f"/v2/{image.name}/blobs/{digest}"), digest)
        self.count("images pulled")

    def _check(self, answer: httpx.Response, digest: str) -> None:
        if answer.status_code == 404:
            self.fail(f"{digest} was acknowledged and is lost")
            return
        self._expect(answer, 200)
        if f"sha256:{hashlib.sha256(answer.content).hexdigest()}" != digest:
            self.fail(f"{digest} is corrupt: {len(answer.content)} bytes")

    def _expect(self, answer: httpx.Response, status: int) -> None:
        if answer.status_code != status:
            self.count(f"answered {answer.status_code}")
            raise RefusedError(f"{answer.request.method} {answer.status_code} {answer.text[:200]}")

    def count(self, what: str) -> None:
        with self._lock:
            self.done[what] += 1

    def fail(self, what: str) -> None:
        with self._lock:
            self.failures.append(what)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.trusted, auth=self.login, timeout=30)
