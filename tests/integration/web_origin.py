"""nginx as an origin on loopback: plain or TLS, fast or shaped like S3, with a log of requests.

Shaped means what a store far away does: the first byte comes after some tens of milliseconds, and
one connection carries at most so many bytes a second. It also answers ListObjectsV2 for its folders
(path style, unsigned), so that S3 clients can read from it without credentials.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from s3_servers import Server, free_port

LISTING = """
local function escape(text)
    local names = {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;"}
    return (text:gsub("[&<>\\"]", names))
end
local arguments = ngx.req.get_uri_args()
local prefix, after = arguments["prefix"] or "", arguments["start-after"] or ""
after = arguments["continuation-token"] or arguments["marker"] or after
local delimiter = arguments["delimiter"]
local limit = tonumber(arguments["max-keys"] or 1000)
local bucket = ngx.var.uri:match("^/_list/([^/]+)")
local names = io.open("ROOT/" .. bucket .. ".keys")
if not names then
    ngx.status = 404
    ngx.say("<Error><Code>NoSuchBucket</Code></Error>")
    return
end
local out, count, last, more, common = {}, 0, "", false, nil
for line in names:lines() do
    local key, size, tag, date = line:match("^(.*)\\t(%d+)\\t(.*)\\t(.*)$")
    local cut = delimiter == "/" and key:find("/", #prefix + 1, true)
    local folder = cut and key:sub(1, cut)
    if key > after and key:sub(1, #prefix) == prefix and not (folder and folder == common) then
        if count == limit then
            more = true
            break
        end
        count, last, common = count + 1, folder and folder .. "\\255" or key, folder
        if folder then
            out[#out + 1] = "<CommonPrefixes><Prefix>" .. escape(folder) ..
                "</Prefix></CommonPrefixes>"
        else
            out[#out + 1] = "<Contents><Key>" .. escape(key) .. "</Key><LastModified>" .. date ..
                "</LastModified><ETag>" .. escape(tag) .. "</ETag><Size>" .. size ..
                "</Size></Contents>"
        end
    end
end
names:close()
ngx.header["Content-Type"] = "application/xml"
ngx.say('<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>' .. bucket .. "</Name>" ..
    "<KeyCount>" .. count .. "</KeyCount><IsTruncated>" .. tostring(more) .. "</IsTruncated>" ..
    (more and ("<NextContinuationToken>" .. escape(last) .. "</NextContinuationToken>") or "") ..
    table.concat(out) .. "</ListBucketResult>")
"""


@dataclass
class Request:
    """A line of the origin's log."""

    method: str
    path: str
    query: str
    range: str
    status: int
    sent_bytes: int
    connection: int


class Origin(Server):
    """Serves `root`; its sub-folders are the buckets.

    Args:
        root: the folder. Call `listed()` after it has changed.
        first_byte_ms: (least, most) latency of each request, or None.
        bytes_per_second: of one connection, or None.
        tls: (certificate file, key file), or None.
        address: to listen at; `prefix` is a command that runs nginx where that address is.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        root: pathlib.Path,
        first_byte_ms: tuple[int, int] | None = None,
        bytes_per_second: int | None = None,
        tls: tuple[pathlib.Path, pathlib.Path] | None = None,
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(folder)
        self._address, self._prefix = address, tuple(prefix)
        self.root = pathlib.Path(root).resolve()
        self._latency = first_byte_ms
        self._rate = bytes_per_second
        self._tls = tls

    @staticmethod
    def missing() -> str:
        if shutil.which("nginx") is None:
            return "not installed: nginx"
        if not list(pathlib.Path("/usr/lib/nginx/modules").glob("ngx_http_lua_module.so")):
            return "not installed: libnginx-mod-http-lua"
        return ""

    def start(self) -> None:
        port = free_port()
        self.endpoint = f"{'https' if self._tls else 'http'}://{self._address}:{port}"
        self.listed()
        (self.folder / "nginx.conf").write_text(self._configuration(port))
        configuration = str(self.folder / "nginx.conf")
        self.spawn("nginx", *self._prefix, "nginx", "-p", str(self.folder), "-c", configuration)
        self.until("nginx", lambda: (self.folder / "nginx.pid").exists(), 20)
        self.until("nginx", self.answers, 20)

    def answers(self) -> bool:
        return self._tls is not None or super().answers()

    def listed(self) -> None:
        """Note which objects there are, for ListObjectsV2."""
        for bucket in (path for path in self.root.iterdir() if path.is_dir()):
            lines = []
            for path in bucket.rglob("*"):
                if path.is_file():
                    status = path.stat()
                    tag = f'"{int(status.st_mtime):x}-{status.st_size:x}"'
                    date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(status.st_mtime))
                    key = path.relative_to(bucket).as_posix()
                    lines.append(f"{key}\t{status.st_size}\t{tag}\t{date}\n")
            text = "".join(sorted(lines))
            (self.folder / f"{bucket.name}.keys").write_text(text)

    def requests(self) -> list[Request]:
        """All requests so far but this class's own probes."""
        log = self.folder / "access.log"
        if not log.exists():
            return []
        lines = [json.loads(line) for line in log.read_text().splitlines() if line]
        return [Request(**line) for line in lines if line["path"] != "/"]

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_NO_SIGN_REQUEST": "true",
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _configuration(self, port: int) -> str:
        listing = LISTING.replace("ROOT", str(self.folder))
        (self.folder / "list.lua").write_text(listing)
        tls = ""
        if self._tls:
            tls = f"ssl_certificate {self._tls[0]}; ssl_certificate_key {self._tls[1]};"
        wait = ""
        if self._latency:
            least, most = self._latency
            wait = f"access_by_lua_block {{ ngx.sleep(math.random({least}, {most}) / 1000) }}"
        rate = f"limit_rate {self._rate};" if self._rate else ""
        fields = {
            "method": "$request_method", "path": "$asked", "query": "$args", "range": "$http_range",
        }  # fmt: skip
        numbers = {
            "status": "$status",
            "sent_bytes": "$body_bytes_sent",
            "connection": "$connection",
        }
        log = ", ".join(
            [f'"{k}": "{v}"' for k, v in fields.items()]
            + [f'"{k}": {v}' for k, v in numbers.items()]
        )
        modules = "/usr/lib/nginx/modules"
        user = "user root;" if os.geteuid() == 0 else ""
        return f"""
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
daemon off; worker_processes 2; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;
{user}
events {{ worker_connections 4096; }}
http {{
    log_format json escape=json '{{{log}}}';
    access_log {self.folder}/access.log json;
    client_body_temp_path {self.folder}/tmp; proxy_temp_path {self.folder}/tmp;
    fastcgi_temp_path {self.folder}/tmp; uwsgi_temp_path {self.folder}/tmp;
    scgi_temp_path {self.folder}/tmp;
    sendfile on; tcp_nodelay on; keepalive_requests 1000000; default_type application/octet-stream;
    server {{
        listen {self._address}:{port} {"ssl" if self._tls else ""} backlog=1024; {tls}
        root {self.root}; set $asked $uri;
        location / {{
            {wait}
            {rate}
            try_files $uri =404;
            if ($arg_list-type = 2) {{ rewrite ^ /_list$uri last; }}
        }}
        location ~ ^/[^/]+/?$ {{ rewrite ^ /_list$uri last; }}
        location /_list/ {{
            internal;
            content_by_lua_file {self.folder}/list.lua;
        }}
    }}
}}
"""


def make_certificates(folder: pathlib.Path, host: str = "127.0.0.1") -> dict[str, pathlib.Path]:
    """A CA of our own and a certificate that it signed: paths "ca", "certificate", "key"."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.pem" for name in ("ca", "ca-key", "certificate", "key")}
    request, extra = folder / "request.pem", folder / "extra.cnf"
    extra.write_text(f"subjectAltName = IP:{host}, DNS:localhost\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    commands = [
        ["req", "-x509", *curve, "-keyout", paths["ca-key"], "-out", paths["ca"]]
        + ["-subj", "/CN=Penstock test CA", "-days", "2"],
        ["req", *curve, "-keyout", paths["key"], "-out", request, "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", request, "-CA", paths["ca"], "-CAkey", paths["ca-key"]]
        + ["-CAcreateserial", "-out", paths["certificate"], "-days", "2", "-extfile", extra],
    ]
    for command in commands:
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return paths
