"""The network between a reader and its origin: a namespace behind a link of a known rate.

`ip netns`, a veth pair and a token bucket on both ends, as root; elsewhere plain loopback, where
the processor and not the link is the limit.
"""

import os
import shutil
import subprocess

from driver.environment import say

LINK_RATE = "10gbit"
HERE, THERE = "10.213.0.1", "10.213.0.2"


def _run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


class Link:
    """`with Link() as link`: link.address is the origin's, link.prefix runs a command there."""

    def __init__(self, rate=LINK_RATE):
        self._rate = rate
        self._name = f"psb{os.getpid() % 100000}"
        self.address, self.prefix, self.kind = "127.0.0.1", [], "loopback"

    def __enter__(self):
        if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
            say("link: loopback (a namespace needs root, ip and tc)")
            return self
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self._remove()
            say(f"link: loopback ({error.stderr.strip()})")
            return self
        self.address = THERE
        self.prefix = ["ip", "netns", "exec", self._name]
        self.kind = f"veth, {self._rate}"
        return self

    def __exit__(self, *_):
        if self.prefix:
            self._remove()

    def _make(self):
        ours, theirs = self._name + "a", self._name + "b"
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs)
        _run("ip", "link", "set", theirs, "netns", self._name)
        inside = ("ip", "netns", "exec", self._name)
        _run("ip", "addr", "add", f"{HERE}/24", "dev", ours)
        _run(*inside, "ip", "addr", "add", f"{THERE}/24", "dev", theirs)
        _run("ip", "link", "set", ours, "up")
        _run(*inside, "ip", "link", "set", theirs, "up")
        _run(*inside, "ip", "link", "set", "lo", "up")
        bucket = ("tbf", "rate", self._rate, "burst", "4mb", "latency", "50ms")
        _run(*inside, "tc", "qdisc", "add", "dev", theirs, "root", *bucket)

    def _remove(self):
        subprocess.run(["ip", "link", "del", self._name + "a"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self._name], check=False, capture_output=True)
