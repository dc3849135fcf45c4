"""/metrics, the probes and the status page, read by Prometheus's parser and a strict HTML one."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time

import html5lib
import pytest
import rig
from prometheus_client.parser import text_string_to_metric_families

JOB = '<script>alert("1")</script>\\ & \n"quoted" \'job\' ä'
#: What a name may end with besides _total: base units, and things that are counted.
UNITS = {"seconds", "bytes", "second", "slots", "threads", "clients", "sessions", "epoch", "info"}
LABELS = {"job", "rank", "loader", "version", "io", "kernels"}
CONNECTIONS_MAX, TIMEOUT_SECONDS = 64, 5  # loader/http.c


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def served(place):
    """A daemon with HTTP; its `port`."""
    port = free_port()
    with place.daemon("--http", f"127.0.0.1:{port}") as daemon:
        daemon.port = port
        yield daemon


def get(daemon, path, method="GET", seconds=5):
    """(status, content type, text); a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, seconds * rig.PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def metrics(daemon):
    """{family: metric} as Prometheus understands it."""
    status, kind, text = get(daemon, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def value(families, name, **labels):
    (found,) = [
        sample.value
        for sample in families[name.removesuffix("_total")].samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def attach(daemon, folder, **more):
    control = rig.Control(daemon.socket)
    assert control.ask("attach", **rig.attach_members(folder, **more))["ok"]
    return control


def trainer(daemon, folder, **more):
    loader = {"batch_size": 8, "address": daemon.socket, **more}
    return rig.Trainer({}, dataset=str(folder), epochs=0, pace="asked", loader=loader)


# ---- metrics ------------------------------------------------------------------------------------


def test_names_types_and_labels(served, folder):
    control = attach(served, folder, job=JOB, name=JOB)
    families = metrics(served)
    control.close()
    raw = get(served, "/metrics")[2]
    for name in re.findall(r"^([a-z_]+)", raw, re.MULTILINE):
        assert name.startswith("penstock_")
        assert f"# HELP {name} " in raw and f"# TYPE {name} " in raw
    assert len(families) > 15
    for family in families.values():
        assert family.documentation.endswith(".") and family.type in ("counter", "gauge")
        assert family.name.rpartition("_")[2] in UNITS or family.type == "counter"
        for sample in family.samples:
            assert sample.name == family.name + ("_total" if family.type == "counter" else "")
            assert set(sample.labels) <= LABELS
            assert sample.value >= 0
    (rank,) = families["penstock_rank_ring_slots"].samples
    assert rank.labels == {"job": JOB, "rank": "0", "loader": "0"} and rank.value == 4


def test_values_move_while_a_loader_runs(served, folder):
    before = metrics(served)
    counters = [f.name + "_total" for f in before.values() if f.type == "counter"]
    with trainer(served, folder, shuffle=True, seed=1) as running:
        for _ in range(20):
            running.tell()
            running.next()
        middle = metrics(served)
        for _ in range(60):
            running.tell()
            running.next()
        after = metrics(served)
        labels = {"rank": "0", "loader": "0"}
        for name in ("batches", "samples", "wait_seconds"):
            name = f"penstock_rank_{name}_total"
            assert 0 < value(middle, name, **labels) <= value(after, name, **labels)
        assert value(middle, "penstock_rank_batches_total") >= 20
        assert value(after, "penstock_rank_batches_total") >= 80
        assert value(after, "penstock_rank_epoch") == 1
        assert value(after, "penstock_clients") >= 1 and value(after, "penstock_sessions") == 1
    rig.until("no session", lambda: value(metrics(served), "penstock_sessions") == 0)
    ended = metrics(served)
    assert not ended["penstock_rank_batches"].samples
    for name in counters:
        if not name.startswith("penstock_rank_"):
            steps = [value(m, name) for m in (before, middle, after, ended)]
            assert steps == sorted(steps), name
    assert value(ended, "penstock_batches_total") >= 80
    assert value(ended, "penstock_samples_total") >= 80 * 7
    assert value(ended, "penstock_read_bytes_total") > 80 * 7 * 500
    assert value(ended, "penstock_bad_samples_total") == 0


def test_ranks_and_loaders_are_told_apart(served, folder):
    controls = [
        attach(served, folder, job="a", world=2, rank=0),
        attach(served, folder, job="a", world=2, rank=1),
        attach(served, folder, job="a", world=2, rank=1),
        attach(served, folder, job="b"),
    ]
    samples = metrics(served)["penstock_rank_ring_slots"].samples
    found = sorted(tuple(s.labels[name] for name in ("job", "rank", "loader")) for s in samples)
    assert found == [("a", "0", "0"), ("a", "1", "0"), ("a", "1", "1"), ("b", "0", "0")]
    for control in controls:
        control.close()


# ---- the page and the probes --------------------------------------------------------------------


def test_the_page_is_html_and_shows_names_as_they_are(served, folder):
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    status, kind, text = get(served, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "No loader is attached" in text
    parser.parse(text)  # raises at the first error
    control = attach(served, folder, job=JOB)
    text = get(served, "/")[2]
    control.close()
    page = parser.parse(text)
    assert page.findall(".//script") == []
    (row,) = page.findall(".//tr")[1:]
    cells = ["".join(cell.itertext()) for cell in row]
    assert cells[0] == JOB and cells[1] == "0 of 1"
    assert len(cells) == len(page.findall(".//th"))


def test_probes(served):
    assert get(served, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert get(served, "/readyz") == (200, "text/plain; charset=utf-8", "ready\n")
    assert get(served, "/healthz", "HEAD")[::2] == (200, "")
    assert get(served, "/nothing")[0] == get(served, "/metrics/../x")[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"):
        assert get(served, "/healthz", method)[0] == 405


def test_not_ready_while_it_drains(place, folder):
    pytest.importorskip("mfusepy")
    from hanging_folder import hanging_folder

    port = free_port()
    with contextlib.ExitStack() as stack:
        try:
            hanging = stack.enter_context(hanging_folder(folder, place.path))
        except OSError as error:
            pytest.skip(f"no FUSE here: {error}")
        daemon = stack.enter_context(place.daemon("--http", f"127.0.0.1:{port}"))
        daemon.port = port
        daemon.ask("dataset", source={"urls": [str(hanging.path)]})
        hanging.shut()
        control = attach(daemon, hanging.path)
        time.sleep(0.1)
        daemon.ask("stop")
        rig.until("unready", lambda: get(daemon, "/readyz")[0] == 503)
        assert get(daemon, "/readyz")[2] == "stopping\n"
        assert get(daemon, "/healthz")[0] == 200
        hanging.open()
        rig.until("an end", lambda: not daemon.is_alive())
        control.close()


# ---- what anybody may send ----------------------------------------------------------------------

GARBAGE = {
    "nothing": b"",
    "zeros": b"\0" * 1000,
    "no request": b"\xff\xfe\x00GET\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 200,
    "no end": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    "escapes": b"GET /%00%ff%2e%2e/..%2f/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "negative body": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "huge body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "bad chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "two requests": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"\0\0",
}


def send(daemon, data):
    """Send, half close, read what comes; a reset is fine, and silence until a timeout."""
    with (
        socket.create_connection(("127.0.0.1", daemon.port), 0.5 * rig.PATIENCE) as raw,
        contextlib.suppress(ConnectionError, TimeoutError),
    ):
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65536):
            pass


def test_garbage_does_no_harm(served, folder):
    fds = len(rig.fd_links(served.pid))
    with trainer(served, folder) as running:
        for data in GARBAGE.values():
            send(served, data)
            running.tell()
            running.next()
            assert get(served, "/healthz")[0] == 200
    rig.until("connections that are closed", lambda: len(rig.fd_links(served.pid)) <= fds + 2)


def test_idle_connections_do_not_lock_others_out(served, folder):
    with contextlib.ExitStack() as stack, trainer(served, folder) as running:
        for number in range(CONNECTIONS_MAX + 10):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            if number % 2:
                raw.sendall(b"GET / HTTP/1.1\r\nHo")
        for _ in range(10):
            running.tell()
            running.next()
        assert get(served, "/healthz", seconds=3 * TIMEOUT_SECONDS)[0] == 200
