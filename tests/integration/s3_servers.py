"""Real S3 servers for the tests: Ceph's radosgw (in memory) and moto, both verifying signatures.

    with Radosgw(folder) as server: ...     # server.endpoint, .access_key, .secret_key

Each server lives in a folder of its own on loopback ports that were free, and ends with the `with`
block. `put`, `bucket` and `delete` speak S3 through curl's own signing, so that no client library
of ours is needed to fill them.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable

ACCESS_KEY, SECRET_KEY, REGION = (
    "PENSTOCKTESTKEY00000",
    "penstock/test+secret/0123456789abcdefghi",
    "us-east-1",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ServerFailed(RuntimeError):
    """A server did not come up; the text has the end of its log."""


class Server:
    """Processes of one server, and requests to it."""

    endpoint: str
    access_key, secret_key, region = ACCESS_KEY, SECRET_KEY, REGION

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._processes: list[subprocess.Popen] = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def start(self) -> None:
        raise NotImplementedError

    def spawn(self, name: str, *command: str, env: dict[str, str] | None = None) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=self.folder
                )
            )

    def until(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            dead = [p.args[0] for p in self._processes if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "".join(
                    f"\n--- {log.name}\n" + log.read_text(errors="replace")[-1500:]
                    for log in sorted(self.folder.glob("*.log"))
                )
                raise ServerFailed(f"{what}: {'ended: ' + str(dead) if dead else 'too slow'}{logs}")
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    # ---- what a test needs ---------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What an AWS SDK, and Penstock, reads to reach this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def bucket(self, name: str) -> str:
        """Make a bucket; returns "s3://name"."""
        self._curl("PUT", f"/{name}")
        return f"s3://{name}"

    def put(self, bucket: str, key: str, content: bytes | pathlib.Path) -> None:
        path = content
        if isinstance(content, bytes):
            path = self.folder / f"upload-{uuid.uuid4().hex}"
            path.write_bytes(content)
        try:
            self._curl("PUT", f"/{bucket}/{key}", "--upload-file", str(path))
        finally:
            if isinstance(content, bytes):
                pathlib.Path(path).unlink()

    def put_folder(self, bucket: str, prefix: str, folder: pathlib.Path) -> None:
        """Every file below `folder`, at prefix + its relative path."""
        for path in sorted(p for p in pathlib.Path(folder).rglob("*") if p.is_file()):
            self.put(bucket, prefix + path.relative_to(folder).as_posix(), path)

    def delete(self, bucket: str, key: str) -> None:
        self._curl("DELETE", f"/{bucket}/{key}")

    def _curl(self, method: str, path: str, *options: str) -> str:
        # The key goes through a file, not the command line.
        config = self.folder / f"curl-{uuid.uuid4().hex}"
        config.write_text(f'user = "{self.access_key}:{self.secret_key}"\n')
        signing = ["--aws-sigv4", f"aws:amz:{self.region}:s3"]
        signing += ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        try:
            done = subprocess.run(
                ["curl", "-sS", "--fail-with-body", "-K", str(config), "-X", method, *signing]
                + [*options, self.endpoint + path],
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            config.unlink()
        if done.returncode != 0:
            raise ServerFailed(f"{method} {path}: {done.stderr}{done.stdout}")
        return done.stdout


class Moto(Server):
    """moto's server, with signatures verified for one IAM user."""

    def start(self) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        # Until so many calls were made nobody has to sign: those that make the user below.
        env = {
            **os.environ,
            "INITIAL_NO_AUTH_ACTION_COUNT": "3",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        env.pop("AWS_ENDPOINT_URL", None)
        self.spawn(
            "moto", sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), env=env
        )
        self.until("moto", lambda: _accepts(port), 60)  # a request would count
        self._make_user()

    def _make_user(self) -> None:
        import boto3

        iam = boto3.client(
            "iam",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="nobody",
            aws_secret_access_key="nobody",
        )
        iam.create_user(UserName="penstock")
        policy = (
            '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
        )
        iam.put_user_policy(UserName="penstock", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="penstock")["AccessKey"]
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]

    @staticmethod
    def missing() -> str:
        try:
            import boto3  # noqa: F401
            import moto.server  # noqa: F401
        except ImportError as error:
            return str(error)
        return ""


class Radosgw(Server):
    """Ceph: one monitor, one object store in memory, one gateway."""

    PROGRAMS = (
        "ceph",
        "ceph-mon",
        "ceph-osd",
        "radosgw",
        "radosgw-admin",
        "monmaptool",
        "ceph-authtool",
    )

    @classmethod
    def missing(cls) -> str:
        absent = [name for name in cls.PROGRAMS if shutil.which(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else ""

    def start(self) -> None:
        self._fsid = str(uuid.uuid4())
        self._mon_port, port = free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self._write_config(port)
        self._start_monitor()
        self._start_store()
        self._start_gateway()

    def _write_config(self, port: int) -> None:
        (self.folder / "ceph.conf").write_text(
            f"""[global]
fsid = {self._fsid}
mon host = [v1:127.0.0.1:{self._mon_port}]
ms bind msgr2 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {self.folder}/keyring
run dir = {self.folder}
admin socket =
log file =
mon cluster log file =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 8589934592
osd max object name len = 1024
mon data avail crit = 1
mon data avail warn = 1
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 64
rgw enable usage log = false
"""
        )

    def _ceph(self, *command: str, timeout: float = 60) -> str:
        done = subprocess.run(
            [command[0], "-c", str(self.folder / "ceph.conf"), *command[1:]],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
        )
        if done.returncode != 0:
            raise ServerFailed(f"{' '.join(command)}: {done.stderr[-1500:]}")
        return done.stdout

    def _start_monitor(self) -> None:
        keyring, everything = str(self.folder / "keyring"), "allow *"
        for name in ("mon.", "client.admin"):
            caps = [
                "--cap",
                "mon",
                everything,
                "--cap",
                "osd",
                everything,
                "--cap",
                "mgr",
                everything,
            ]
            subprocess.run(
                ["ceph-authtool", keyring, *([] if name != "mon." else ["--create-keyring"])]
                + ["--gen-key", "-n", name, *caps],
                check=True,
                capture_output=True,
            )
        address = f"[v1:127.0.0.1:{self._mon_port}]"
        map_path, data = str(self.folder / "monmap"), str(self.folder / "mon")
        subprocess.run(
            ["monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, map_path],
            check=True,
            capture_output=True,
        )
        self._ceph(
            "ceph-mon",
            "--mkfs",
            "-i",
            "a",
            "--monmap",
            map_path,
            "--keyring",
            keyring,
            "--mon-data",
            data,
        )
        configuration = str(self.folder / "ceph.conf")
        self.spawn("mon", "ceph-mon", "-f", "-c", configuration, "-i", "a", "--mon-data", data)
        self.until("ceph-mon", lambda: self._is_fine("ceph", "-s", "--connect-timeout", "5"), 60)

    def _is_fine(self, *command: str) -> bool:
        with contextlib.suppress(ServerFailed, subprocess.TimeoutExpired):
            self._ceph(*command, timeout=10)
            return True
        return False

    def _start_store(self) -> None:
        data = self.folder / "osd"
        data.mkdir()
        identity = str(uuid.uuid4())
        number = self._ceph("ceph", "osd", "new", identity).strip()
        keyring = str(data / "keyring")
        self._ceph(
            "ceph", "auth", "get-or-create", f"osd.{number}",
            "mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *", "-o", keyring,
        )  # fmt: skip
        options = ["-i", number, "--osd-data", str(data), "--keyring", keyring]
        self._ceph("ceph-osd", *options, "--mkfs", "--osd-uuid", identity)
        self.spawn("osd", "ceph-osd", "-f", "-c", str(self.folder / "ceph.conf"), *options)
        self.until("ceph-osd", lambda: "1 up" in self._ceph("ceph", "osd", "stat"), 60)

    def _start_gateway(self) -> None:
        keyring = str(self.folder / "rgw.keyring")
        name = "client.rgw.a"
        self._ceph(
            "ceph", "auth", "get-or-create", name,
            "mon", "allow rw", "osd", "allow rwx", "-o", keyring,
        )  # fmt: skip
        configuration = str(self.folder / "ceph.conf")
        self.spawn("rgw", "radosgw", "-f", "-c", configuration, "-n", name, "--keyring", keyring)
        self.until("radosgw", self.answers, 120)
        self._ceph(
            "radosgw-admin", "-n", name, "--keyring", keyring, "user", "create",
            "--uid=penstock", "--display-name=penstock",
            f"--access-key={self.access_key}", f"--secret={self.secret_key}", timeout=120,
        )  # fmt: skip
