"""A range server that misbehaves on demand, for tests of how Penstock reads from S3.

    python faulty_origin.py FOLDER [--port N] [--plan PLAN.json] [--log LOG.jsonl]

Serves the files below FOLDER as an S3 server in path style does (its sub-folders are the buckets):
GET with ranges, HEAD, ListObjectsV2, strong ETags (MD5), If-Match. Nothing needs to be signed.
Prints "http://127.0.0.1:PORT" when it is ready.

A fault is a JSON object with "kind" and the fields that the kind takes:

    reset     the connection is reset after "at" bytes of the body; -1: in the middle of the head
    close     the same, but closed in good order
    status    answers with "status" and the S3 error "code"; with "retry_after" and
              "region" in their headers
    drip      sends 100 bytes a second from byte "at" on
    stall     sends nothing more from byte "at" on; -1: not even a head
    short206  a 206 whose Content-Range and Content-Length agree, for "at" bytes fewer
    wrongrange  says and sends the range moved by "at" bytes
    whole200  the whole object with status 200
    changed   answers as if the object had been replaced: other bytes, another ETag, no 412
    replaced  the same, but If-Match is obeyed

Which requests it strikes: "path" (a part of the path; default all), "method" (default GET), "key"
(signed with this access key), "skip" (so many that fit are spared first), "count" (how many are
struck; default 1; -1: all), "seconds" (only so long after the first that was struck). The first
fault that fits a request strikes it.

It is an HTTP proxy as well: of a request for http://HOST/PATH it serves PATH.

Set them with --plan or by POST /_faults (a JSON list, which replaces the faults there are);
GET /_faults shows them with "struck", the number of requests each has struck. GET /_log gives the
requests so far as JSON lines.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import pathlib
import socket
import struct
import sys
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

KINDS = {
    "reset", "close", "status", "drip", "stall", "short206", "wrongrange", "whole200", "changed",
    "replaced",
}  # fmt: skip


class FaultyOrigin:
    """The server, on a thread of its own: `with FaultyOrigin(folder) as origin: ...`."""

    def __init__(self, root: pathlib.Path, port: int = 0, log: pathlib.Path | None = None) -> None:
        self.root = pathlib.Path(root).resolve()
        self._lock = threading.Lock()
        self._faults: list[dict] = []
        self._requests: list[dict] = []
        self._tags: dict[tuple, str] = {}
        self._log = open(log, "a", encoding="utf-8") if log else None  # noqa: SIM115
        handler = type("Handler", (_Handler,), {"origin": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_NO_SIGN_REQUEST": "true",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def faults(self, *faults: dict) -> None:
        """Replace the faults."""
        for fault in faults:
            if fault.get("kind") not in KINDS:
                raise ValueError(f"no kind of fault: {fault}")
        with self._lock:
            self._faults = [dict(fault, struck=0, seen=0) for fault in faults]

    def struck(self) -> list[dict]:
        with self._lock:
            return [dict(fault) for fault in self._faults]

    def requests(self) -> list[dict]:
        with self._lock:
            return list(self._requests)

    def note(self, request: dict) -> None:
        with self._lock:
            self._requests.append(request)
            if self._log:
                self._log.write(json.dumps(request) + "\n")
                self._log.flush()

    def strike(self, method: str, path: str, authorization: str) -> dict | None:
        now = time.monotonic()
        with self._lock:
            for fault in self._faults:
                is_over = "seconds" in fault and now > fault.get("first", now) + fault["seconds"]
                if (
                    is_over
                    or fault.get("method", "GET") != method
                    or fault.get("path", "") not in path
                    or ("key" in fault and f"Credential={fault['key']}/" not in authorization)
                ):
                    continue
                fault["seen"] += 1
                limit = fault.get("count", 1 if "seconds" not in fault else -1)
                if fault["seen"] <= fault.get("skip", 0) or 0 <= limit <= fault["struck"]:
                    continue
                fault["struck"] += 1
                fault.setdefault("first", now)
                return fault
        return None

    def tag(self, path: pathlib.Path) -> str:
        status = path.stat()
        key = (path, status.st_mtime_ns, status.st_size)
        with self._lock:
            if key not in self._tags:
                self._tags[key] = f'"{hashlib.md5(path.read_bytes()).hexdigest()}"'
            return self._tags[key]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that break are what this server is for."""


class _Struck(Exception):
    """The connection was ended in mid-answer."""


class _Handler(http.server.BaseHTTPRequestHandler):
    origin: FaultyOrigin
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.origin.faults(*json.loads(body))
        self._answer(200, b"{}\n", {"Content-Type": "application/json"})

    def _serve(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        if path == "/_faults":
            self._answer(200, json.dumps(self.origin.struck(), indent=1).encode())
            return
        if path == "/_log":
            lines = "".join(json.dumps(request) + "\n" for request in self.origin.requests())
            self._answer(200, lines.encode())
            return
        fault = self.origin.strike(method, path, self.headers.get("Authorization", ""))
        self._entry = {
            "time": time.time(),
            "method": method,
            "path": path,
            "query": url.query,
            "range": self.headers.get("Range", ""),
            "if_match": self.headers.get("If-Match", ""),
            "connection": self.client_address[1],
            "fault": fault["kind"] if fault else "",
        }
        try:
            self._respond(path, url.query, fault or {"kind": ""})
        except (_Struck, ConnectionError):
            self.close_connection = True
        finally:
            self.origin.note(self._entry)

    def _respond(self, path: str, query: str, fault: dict) -> None:
        if fault["kind"] == "status":
            names = {"retry_after": "Retry-After", "region": "x-amz-bucket-region"}
            extra = {names[field]: str(fault[field]) for field in names if field in fault}
            self._error(fault.get("status", 500), fault.get("code", "InternalError"), extra)
            return
        if "list-type=2" in query:
            self._list(path.strip("/"), dict(urllib.parse.parse_qsl(query)))
            return
        target = (self.origin.root / path.lstrip("/")).resolve()
        if not target.is_relative_to(self.origin.root) or not target.is_file():
            self._error(404, "NoSuchKey", {})
            return
        content, tag = target.read_bytes(), self.origin.tag(target)
        if fault["kind"] in {"changed", "replaced"}:
            content = content.translate(bytes(range(255, -1, -1)))
            tag = f'"{hashlib.md5(content).hexdigest()}"'
        if fault["kind"] != "changed" and self.headers.get("If-Match", tag) != tag:
            self._error(412, "PreconditionFailed", {})
            return
        self._object(content, tag, fault)

    def _object(self, content: bytes, tag: str, fault: dict) -> None:
        first, last, status = 0, len(content) - 1, 200
        asked = self.headers.get("Range")
        if asked and fault["kind"] != "whole200":
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last, status = int(start), min(int(end or last), len(content) - 1), 206
            if first >= len(content):
                self._error(416, "InvalidRange", {})
                return
        if fault["kind"] == "short206":
            last = max(first, last - fault.get("at", 1))
        if fault["kind"] == "wrongrange":
            move = min(fault.get("at", 1), len(content) - 1 - last) or -min(fault["at"], first)
            first, last = first + move, last + move
        body = content[first : last + 1]
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        if status == 206:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._answer(status, body, headers, fault)

    def _error(self, status: int, code: str, extra: dict[str, str]) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._answer(status, body.encode(), {"Content-Type": "application/xml", **extra})

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        folder, prefix = self.origin.root / bucket, query.get("prefix", "")
        after, limit = query.get("continuation-token", ""), int(query.get("max-keys", 1000))
        if not folder.is_dir():
            self._error(404, "NoSuchBucket", {})
            return
        paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        keys = sorted(key for key in paths if key.startswith(prefix) and key > after)
        folders: list[str] = []
        if query.get("delimiter"):
            deep = [key for key in keys if "/" in key[len(prefix) :]]
            tails = {prefix + key[len(prefix) :].split("/")[0] + "/" for key in deep}
            folders, keys = sorted(tails), [key for key in keys if key not in set(deep)]
        more = len(keys) > limit
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{paths[key].stat().st_size}</Size>"
            f"<ETag>{escape(self.origin.tag(paths[key]))}</ETag></Contents>"
            for key in keys[:limit]
        )
        entries += "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders
        )
        if more:
            entries += f"<NextContinuationToken>{escape(keys[limit - 1])}</NextContinuationToken>"
        text = f"<IsTruncated>{str(more).lower()}</IsTruncated>{entries}"
        self._answer(200, f"<ListBucketResult>{text}</ListBucketResult>".encode(), {})

    # ---- bytes on the wire ---------------------------------------------------------------------

    def _answer(
        self, status: int, body: bytes, headers: dict | None = None, fault: dict | None = None
    ) -> None:
        fault = fault or {"kind": ""}
        at = fault.get("at", 0)
        breaks = fault["kind"] in {"reset", "close", "stall"}
        if breaks and at < 0:
            if fault["kind"] != "stall":
                self.wfile.write(b"HTTP/1.1 206 Partial Con")
            self._break(fault["kind"])
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if hasattr(self, "_entry"):
            self._entry["status"] = status
        if self.command == "HEAD":
            return
        if breaks and at < len(body):
            self._write(body[:at])
            self._break(fault["kind"])
        if fault["kind"] == "drip":
            self._write(body[:at])
            for place in range(at, len(body), 10):
                self._write(body[place : place + 10])
                time.sleep(0.1)
            return
        self._write(body)

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        if hasattr(self, "_entry"):
            self._entry["sent"] = self._entry.get("sent", 0) + len(data)

    def _break(self, kind: str) -> None:
        self.wfile.flush()
        if kind == "stall":
            self.connection.settimeout(600)
            self.connection.recv(1)  # until the client goes
        elif kind == "reset":
            time.sleep(0.02)  # what was sent arrives first
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        raise _Struck


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--plan", type=pathlib.Path, help="JSON list of faults")
    parser.add_argument("--log", type=pathlib.Path, help="append each request as a JSON line")
    options = parser.parse_args()
    with FaultyOrigin(options.folder, options.port, options.log) as origin:
        if options.plan:
            origin.faults(*json.loads(options.plan.read_text()))
        print(origin.endpoint, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
