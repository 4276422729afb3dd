"""rediss: the fair transport over TLS, with a certificate made here."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from bare import Bare, open_epoch
from running import until

from orchestrator.embedded.redis_server import find_binary
from orchestrator.embedded.stack import free_port


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    crt, key = tmp_path / "redis.crt", tmp_path / "redis.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    words += ["-keyout", str(key), "-out", str(crt), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    return crt, key


@pytest.fixture
def url(certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[str]:
    """A Redis that speaks nothing but TLS, on the loopback interface."""
    crt, key = certificate
    port = free_port()
    words = [
        find_binary(),
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--tls-cert-file",
        str(crt),
        "--dir",
        str(tmp_path),
    ]
    words += ["--tls-key-file", str(key), "--tls-ca-cert-file", str(crt), "--tls-auth-clients", "no", "--save", ""]
    log = tmp_path / "redis.log"
    with log.open("wb") as out:
        server = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        found = f"rediss://localhost:{port}/0?ssl_ca_certs={crt}&ssl_cert_reqs=required"
        deadline = time.monotonic() + 20
        while True:
            if server.poll() is not None:
                pytest.skip(f"{words[0]} has no TLS: {log.read_text().strip().splitlines()[-1]}")
            try:
                with redis.Redis.from_url(found) as client:
                    client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        yield found
    finally:
        server.terminate()
        server.wait(10)


def test_messages_of_tenants_travel_over_tls_with_the_certificate_checked(url: str, tmp_path: Path) -> None:
    bare = Bare(url, tmp_path)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        open_epoch(client)
        with bare.worker("tls", "-c", "1"):
            bare.publish(("over tls", 0.0), tenant="acme")
            until(lambda: len(bare.notes("ended")) == 1)
            until(lambda: not client.hlen("hg1:msg"))
        assert [note.label for note in bare.notes()] == ["over tls"]
