"""loader/remote/ against real servers: moto with verified signatures, nginx with TLS, and an origin
that misbehaves. Driven through tests/tools/remotetool.c.
"""

import datetime
import http.server
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time
import typing

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "integration"), str(TESTS / "tools")]

import s3_servers  # noqa: E402
import web_origin  # noqa: E402
from faulty_origin import FaultyOrigin  # noqa: E402

PART = 256 * 1024
OBJECT_BYTES = 2_000_000


BUILD = pathlib.Path(os.environ.get("PENSTOCK_BUILD", TESTS.parent / "build" / "release"))
TOOL = BUILD / "tests" / "remotetool"
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="remotetool is not built")


class Tool:
    def __init__(self, environment: dict[str, str]) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        self.environment = {**kept, "HOME": "/nonexistent", **environment}

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(TOOL), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=90,
        )

    def get(self, path: pathlib.Path, *urls: str, **environment: str) -> dict:
        done = self("get", str(path), str(PART), "8", *urls, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def error(self, *arguments: str, **environment: str) -> str:
        done = self(*arguments, **environment)
        assert done.returncode == 1, done.stdout
        return done.stderr


# ---- moto ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    if reason := s3_servers.Moto.missing():
        pytest.skip(reason)
    with s3_servers.Moto(tmp_path_factory.mktemp("moto")) as server:
        server.bucket("bucket")
        server.put("bucket", "folder/small.txt", b"hello")
        yield server


@pytest.fixture
def signed(moto):
    return Tool(moto.environment())


def test_signed_requests(signed, moto, tmp_path):
    content = random.Random(1).randbytes(3 * PART + 17)
    (tmp_path / "in").write_bytes(content)
    url = "s3://bucket/a dir/\u00e4+&=%41~(1).bin"
    assert signed("write", url, str(tmp_path / "in")).returncode == 0
    signed.get(tmp_path / "out", url)
    assert (tmp_path / "out").read_bytes() == content
    assert signed("read", "s3://bucket/folder/small.txt").stdout == "hello"
    listed = signed("list", "s3://bucket/").stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in listed] == [url, "s3://bucket/folder/small.txt"]
    shallow = signed("list", "s3://bucket/", "shallow").stdout
    assert "- - s3://bucket/folder/" in shallow


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, ["access:", "SignatureDoesNotMatch", "secret"]),
        ({"AWS_ACCESS_KEY_ID": "UNKNOWNKEY"}, ["access:", "InvalidAccessKeyId", "AWS_PROFILE"]),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, ["io:", "127.0.0.1:9", "Check the endpoint"]),
        ({"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, ["io:", "DNS", "nowhere.invalid"]),
        ({"AWS_ENDPOINT_URL": "nonsense"}, ["usage:", "AWS_ENDPOINT_URL"]),
        ({"AWS_SECRET_ACCESS_KEY": ""}, ["access:", "AWS_SECRET_ACCESS_KEY"]),
        ({"REMOTETOOL_PROFILE": "nobody"}, ["access:", "nobody", "AWS_PROFILE"]),
        ({"AWS_NO_SIGN_REQUEST": "true"}, ["access:", "AWS_NO_SIGN_REQUEST"]),
    ],
)
def test_what_is_wrong_is_named(signed, moto, changed, words):
    said = signed.error(
        "head", "s3://bucket/folder/small.txt", REMOTETOOL_GIVE_UP_MS="1500", **changed
    )
    assert all(word in said for word in words), said
    assert moto.secret_key not in said and "wrong-secret" not in said


def test_what_is_missing_is_named(signed):
    assert "NoSuchKey" in signed.error("head", "s3://bucket/none")
    assert '"nobucket"' in signed.error("list", "s3://nobucket/")


def test_profiles_and_processes(signed, moto, tmp_path):
    secret = f"aws_access_key_id = {moto.access_key}\naws_secret_access_key = {moto.secret_key}\n"
    keys = {"Version": 1, "AccessKeyId": moto.access_key, "SecretAccessKey": moto.secret_key}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    (tmp_path / "credentials").write_text(f"[plain]\n{secret}")
    (tmp_path / "config").write_text(
        f"""# comment
[profile plain]
endpoint_url = {moto.endpoint}
s3 =
    addressing_style = path
[profile program]
endpoint_url = {moto.endpoint}
credential_process = cat "{tmp_path}/keys.json"
[profile role]
endpoint_url = {moto.endpoint}
role_arn = arn:aws:iam::123456789012:role/reader
source_profile = plain
[profile broken]
endpoint_url = {moto.endpoint}
credential_process = false
"""
    )
    files = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    tool = Tool(files)
    for profile in ("plain", "program"):
        read = tool("read", "s3://bucket/folder/small.txt", REMOTETOOL_PROFILE=profile)
        assert read.stdout == "hello", read.stderr
        assert tool("read", "s3://bucket/folder/small.txt", AWS_PROFILE=profile).stdout == "hello"
    said = tool.error("read", "s3://bucket/folder/small.txt", REMOTETOOL_PROFILE="broken")
    assert "credential_process" in said


class Grantor(http.server.BaseHTTPRequestHandler):
    """Stands for the instance metadata service, the container endpoint and STS."""

    seconds = 3600
    answered: typing.ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass

    def keys(self) -> dict[str, str]:
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.seconds)
        return {
            "AccessKeyId": self.moto.access_key,
            "SecretAccessKey": self.moto.secret_key,
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def answer(self, text: str, status: int = 200) -> None:
        self.answered.append(f"{self.command} {self.path}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        fits = self.path == "/latest/api/token" and self.headers.get(
            "X-aws-ec2-metadata-token-ttl-seconds"
        )
        self.answer("session-token" if fits else "", 200 if fits else 404)

    def do_GET(self) -> None:
        folder = "/latest/meta-data/iam/security-credentials/"
        if self.path.startswith(folder):
            if self.headers.get("X-aws-ec2-metadata-token") != "session-token":
                self.answer("", 401)
            else:
                name = self.path.removeprefix(folder)
                self.answer(json.dumps(self.keys()) if name else "machine-role")
        elif self.path == "/container" and self.headers.get("Authorization") == "Bearer x":
            self.answer(json.dumps(self.keys()))
        else:
            self.answer("", 403)

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_web = (
            "Action=AssumeRoleWithWebIdentity" in form and "WebIdentityToken=web%2Ftoken" in form
        )
        if not is_web:
            self.answer(
                "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", 403
            )
            return
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in self.keys().items())
        token = "<SessionToken>IGNORED</SessionToken>"
        self.answer(f"<R><Credentials>{fields}{token}</Credentials></R>")


@pytest.fixture
def grantor(moto):
    handler = type("Here", (Grantor,), {"moto": moto, "answered": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()


def test_credentials_of_machine_and_container(grantor, moto, tmp_path):
    (tmp_path / "token").write_text("Bearer x\n")
    machine = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": grantor.endpoint}
    container = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{grantor.endpoint}/container",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for place in (machine, container):
        tool = Tool({"AWS_ENDPOINT_URL": moto.endpoint, **place})
        read = tool("read", "s3://bucket/folder/small.txt")
        assert read.stdout == "hello", read.stderr
    said = tool.error(
        "read",
        "s3://bucket/folder/small.txt",
        AWS_CONTAINER_CREDENTIALS_FULL_URI="http://example.com/keys",
    )
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in said
    said = tool.error(
        "read",
        "s3://bucket/folder/small.txt",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{grantor.endpoint}/other",
    )
    assert "container" in said and "403" in said


def test_credentials_of_a_web_identity(grantor, moto, tmp_path):
    (tmp_path / "web").write_text("web/token")
    tool = Tool(
        {
            "AWS_ENDPOINT_URL": moto.endpoint,
            "AWS_ENDPOINT_URL_STS": grantor.endpoint,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "web"),
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )
    tool("read", "s3://bucket/folder/small.txt")
    assert set(grantor.answered) == {"POST /"}  # moto refuses the made token, which is renewed
    (tmp_path / "web").write_text("another")
    said = tool.error("read", "s3://bucket/folder/small.txt")
    assert "role/reader" in said and "AccessDenied" in said and "another" not in said


def test_short_lived_credentials_are_renewed(grantor, moto, faulty, tmp_path):
    grantor.seconds = 14  # of which the last 10 are not used
    faulty.faults({"kind": "stall", "at": 1000, "count": 3})
    tool = Tool(
        {
            "AWS_ENDPOINT_URL": faulty.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": grantor.endpoint,
            "REMOTETOOL_STALL_MS": "5500",
        }
    )
    done = tool("get", str(tmp_path / "out"), str(PART), "1", "s3://bucket/x.tar")
    assert done.returncode == 0, done.stderr
    assert grantor.answered.count("PUT /latest/api/token") >= 2


def test_expired_tokens_are_renewed(grantor, faulty, tmp_path):
    expired = {"kind": "status", "status": 400, "code": "ExpiredToken", "count": 1, "skip": 3}
    faulty.faults(expired)
    tool = Tool(
        {
            "AWS_ENDPOINT_URL": faulty.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": grantor.endpoint,
        }
    )
    done = tool("get", str(tmp_path / "out"), str(PART), "1", "s3://bucket/x.tar")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == whole(faulty)
    assert grantor.answered.count("PUT /latest/api/token") == 2
    faulty.faults(dict(expired, count=-1))
    said = tool.error("get", "-", str(PART), "1", "s3://bucket/x.tar")
    assert said.startswith("access:") and "ExpiredToken" in said


# ---- TLS ----------------------------------------------------------------------------------------


def test_tls(tmp_path):
    if reason := web_origin.Origin.missing():
        pytest.skip(reason)
    paths = web_origin.make_certificates(tmp_path / "ca")
    content = random.Random(2).randbytes(OBJECT_BYTES)
    (tmp_path / "root" / "bucket").mkdir(parents=True)
    (tmp_path / "root" / "bucket" / "x.tar").write_bytes(content)
    pair = (paths["certificate"], paths["key"])
    with web_origin.Origin(tmp_path / "nginx", tmp_path / "root", tls=pair) as origin:
        tool = Tool(origin.environment())
        said = tool.error("head", "s3://bucket/x.tar")
        assert said.startswith("access:") and "AWS_CA_BUNDLE" in said
        tool.get(tmp_path / "out", "s3://bucket/x.tar", AWS_CA_BUNDLE=str(paths["ca"]))
        assert (tmp_path / "out").read_bytes() == content
        url = f"{origin.endpoint}/bucket/x.tar"
        tool.get(tmp_path / "out2", url, SSL_CERT_FILE=str(paths["ca"]))
        assert (tmp_path / "out2").read_bytes() == content


# ---- an origin that misbehaves ------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    root = tmp_path_factory.mktemp("faulty")
    (root / "bucket").mkdir()
    (root / "bucket" / "x.tar").write_bytes(random.Random(3).randbytes(OBJECT_BYTES))
    with FaultyOrigin(root) as origin:
        yield origin


@pytest.fixture
def plain(faulty):
    faulty.faults()
    return Tool({**faulty.environment(), "REMOTETOOL_STALL_MS": "500"})


def whole(faulty) -> bytes:
    return (faulty.root / "bucket" / "x.tar").read_bytes()


PLACES = [-1, 0, 1, 1000, PART // 2, PART - 1]


@pytest.mark.parametrize("kind", ["reset", "close", "stall"])
def test_answers_that_break_off(plain, faulty, tmp_path, kind):
    faulty.faults(*({"kind": kind, "at": at, "skip": n} for n, at in enumerate(PLACES)))
    figures = plain.get(tmp_path / "out", "s3://bucket/x.tar")
    assert (tmp_path / "out").read_bytes() == whole(faulty)
    assert figures["retries"] + figures["hedges"] >= 1
    assert all(fault["struck"] for fault in faulty.struck())


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500, "count": 5},
        {"kind": "status", "status": 503, "code": "SlowDown", "count": 12},
        {"kind": "status", "status": 429, "code": "TooManyRequests", "retry_after": 1},
        {"kind": "drip", "at": 1000},
        {"kind": "short206", "at": 100, "count": 4},
        {"kind": "wrongrange", "at": 512, "count": 4},
        {"kind": "whole200", "count": 3},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_answers_that_are_wrong(plain, faulty, tmp_path, fault):
    faulty.faults(fault)
    plain.get(tmp_path / "out", "s3://bucket/x.tar")
    assert (tmp_path / "out").read_bytes() == whole(faulty)
    assert faulty.struck()[0]["struck"] >= 1


def test_an_outage_of_ten_seconds(plain, faulty, tmp_path):
    faulty.faults({"kind": "status", "status": 503, "code": "SlowDown", "seconds": 10})
    begin = time.monotonic()
    plain.get(tmp_path / "out", "s3://bucket/x.tar")
    assert (tmp_path / "out").read_bytes() == whole(faulty)
    assert time.monotonic() - begin < 10 + 5


def test_retry_after_is_obeyed(plain, faulty, tmp_path):
    faulty.faults({"kind": "status", "status": 503, "retry_after": 2, "count": 1})
    begin = time.monotonic()
    plain.get(tmp_path / "out", "s3://bucket/x.tar")
    assert time.monotonic() - begin >= 2


@pytest.mark.parametrize("skip", [0, 3])
def test_a_replaced_object_is_an_error(plain, faulty, tmp_path, skip):
    faulty.faults({"kind": "changed", "skip": skip, "count": -1})
    said = plain.error("get", str(tmp_path / "out"), str(PART), "1", "s3://bucket/x.tar")
    assert said.startswith("changed:") and said.count('"') >= 4


def test_parts_carry_if_match(plain, faulty, tmp_path):
    before = len(faulty.requests())
    plain.get(tmp_path / "out", "s3://bucket/x.tar")
    parts = [r for r in faulty.requests()[before:] if r["method"] == "GET"]
    assert len(parts) == -(-OBJECT_BYTES // PART)
    assert all(part["if_match"] for part in parts)


def test_a_server_without_ranges_is_named(plain, faulty, tmp_path):
    faulty.faults({"kind": "whole200", "count": -1})
    said = plain.error("get", str(tmp_path / "out"), str(PART), "1", "s3://bucket/x.tar")
    assert said.startswith("io:") and "instead of the range" in said


def test_giving_up_says_what_was_tried(plain, faulty, tmp_path):
    faulty.faults({"kind": "status", "status": 503, "code": "SlowDown", "count": -1})
    said = plain.error(
        "get", "-", str(PART), "2", "s3://bucket/x.tar", REMOTETOOL_GIVE_UP_MS="1500"
    )
    assert "503 SlowDown" in said and "attempts" in said


def test_a_bucket_elsewhere_is_found(plain, faulty, tmp_path):
    moved = {"kind": "status", "status": 301, "code": "PermanentRedirect", "region": "eu-west-9"}
    faulty.faults({**moved, "method": "HEAD"})
    plain.get(tmp_path / "out", "s3://bucket/x.tar")
    assert (tmp_path / "out").read_bytes() == whole(faulty)
    faulty.faults({**moved, "region": "", "method": "HEAD", "count": -1})
    said = plain.error("head", "s3://bucket/x.tar")
    assert "AWS_REGION" in said and "us-east-1" in said


def test_a_wrong_clock_is_named(plain, faulty):
    faulty.faults({"kind": "status", "status": 403, "code": "RequestTimeTooSkewed", "count": -1})
    assert "clock" in plain.error("read", "s3://bucket/x.tar")


def test_a_proxy_that_is_gone_is_named(plain):
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    said = plain.error("head", "s3://bucket/x.tar", REMOTETOOL_GIVE_UP_MS="1000", **proxy)
    assert said.startswith("io:") and "proxy" in said
