"""A loader without an address: the daemon of ``penstock serve`` if it fits, else a private one."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import penstock
import pytest
from penstock import _client, _daemon
from penstock import transforms as T
from penstock._wire import Connection

np = pytest.importorskip("numpy")

SECONDS_MAX = 30
NOBODY = 65534


@pytest.fixture
def place(monkeypatch):
    """The default socket of ``penstock serve``, where nobody is yet."""
    with tempfile.TemporaryDirectory(prefix="ps-", dir="/tmp") as folder:
        path = Path(folder) / "penstock.sock"
        monkeypatch.setattr(_daemon, "served_socket", lambda: str(path))
        monkeypatch.delenv("PENSTOCK_DAEMON")
        yield path


@pytest.fixture
def served(place):
    """A daemon there."""
    command = [_daemon.daemon_binary(), "--foreground", "--socket", str(place)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + SECONDS_MAX
        while not place.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        yield process
        process.send_signal(signal.SIGCONT)
        process.terminate()


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def is_private() -> bool:
    with _client.connect() as client:
        return client.hello["private"]


def test_a_loader_finds_the_served_daemon(served, place, folder, caplog):
    with caplog.at_level(logging.INFO, "penstock"):
        loader = penstock.DataLoader(folder, 10, transforms=[T.Resize((32, 32))], output="numpy")
        with loader:
            ids = [sample for batch in loader for sample in batch.sample_ids.tolist()]
            assert loader._session._client.hello["pid"] == served.pid
    assert ids == list(range(60))
    assert f"using the daemon at {place} (pid {served.pid}" in caplog.text


def test_when_it_leaves_the_loader_goes_on_with_a_private_one(served, folder):
    loader = penstock.DataLoader(folder, 10, transforms=[T.Resize((32, 32))], output="numpy")
    with loader:
        iterator = iter(loader)
        ids = next(iterator).sample_ids.tolist()
        served.kill()
        served.wait(SECONDS_MAX)
        ids += [sample for batch in iterator for sample in batch.sample_ids.tolist()]
        assert loader._link.get().hello["private"]
    assert ids == list(range(60))


def test_nobody_there(place):
    assert is_private()
    listen(place).close()  # left by a crash
    assert place.exists()
    assert is_private()


def test_another_protocol_is_passed_over(place, caplog):
    def answer() -> None:
        with listener.accept()[0] as peer:
            peer.recv(4096)
            text = json.dumps({"ok": True, "protocol": 0, "version": "0.0.1", "pid": 1}).encode()
            peer.sendall(len(text).to_bytes(4, "little") + text)

    with listen(place) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        assert is_private()
        thread.join(SECONDS_MAX)
    assert f"the daemon at {place} is passed over: " in caplog.text
    assert "speaks protocol 0" in caplog.text


def test_one_that_hangs_is_passed_over(served, monkeypatch, caplog):
    monkeypatch.setattr(_client, "_SERVED_SILENCE_SECONDS", 0.2)
    served.send_signal(signal.SIGSTOP)
    assert is_private()
    assert "passed over: " in caplog.text and f"kill -9 {served.pid}" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be another user")
def test_nothing_is_said_to_another_users_daemon(place, caplog):
    os.chmod(place.parent, 0o777)
    os.seteuid(NOBODY)
    try:
        listener = listen(place)
    finally:
        os.seteuid(0)
    with listener:
        assert is_private()
        with listener.accept()[0] as peer:
            assert peer.recv(1) == b""
    assert f"is of user {NOBODY}" in caplog.text


def test_settings_of_ones_own_want_a_daemon_of_ones_own(served, monkeypatch):
    with _client.connect(options=_daemon.DaemonOptions(threads=1)) as client:
        assert client.hello["private"]
    assert not is_private()
    monkeypatch.setenv("PENSTOCK_DAEMON", _daemon.daemon_binary())
    assert is_private()


def test_the_peer_of_a_private_daemon_is_the_daemon():
    with _client.connect(options=_daemon.DaemonOptions(threads=1)) as client:
        connection = Connection(client.address)
        assert connection.peer() == (client.hello["pid"], os.getuid())
        connection.close()


@pytest.mark.parametrize(
    "name", ["AWS_PROFILE", "AWS_ENDPOINT_URL", "https_proxy", "NO_PROXY", "SSL_CERT_FILE", "HOME"]
)
def test_another_way_into_the_network_is_another_private_daemon(monkeypatch, name):
    options = _daemon.DaemonOptions()
    monkeypatch.setenv("UNRELATED", "1")
    before = _daemon.daemon_key(options)
    monkeypatch.setenv("UNRELATED", "2")
    assert _daemon.daemon_key(options) == before
    monkeypatch.setenv(name, "/another")
    assert _daemon.daemon_key(options) != before
