"""Memory: the ring and 100 MB at most, and flat over epochs."""

from __future__ import annotations

import gc
import os

import penstock
import pytest
import rig
from penstock import transforms as T

ALLOWED_BYTES = 100 * 2**20


@pytest.mark.parametrize("epochs", [6, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.skipif(rig.IS_SANITIZED, reason="a sanitizer's memory is not ours")
def test_bounded_and_flat(place, datasets, epochs):
    with place.daemon("--threads", "2") as daemon:
        gc.collect()
        before = rig.pss_bytes(os.getpid())
        loader = penstock.DataLoader(
            datasets["folder"],
            64,
            shuffle=True,
            transforms=[T.RandomResizedCrop(224)],
            address=daemon.socket,
            output="numpy",
        )
        totals, fds, threads = [], [], []
        ring = 0
        for _ in range(epochs):
            for batch in loader:
                batch["image"].sum()
            with rig.Control(daemon.socket) as control:
                (job,) = control.ask("status")["jobs"]
            slot = 64 * (3 * 224 * 224 + 64) + 3 * 4096
            ring = job["ring_slots"] * slot
            totals.append(rig.pss_bytes(daemon.pid) + rig.pss_bytes(os.getpid()) - before)
            fds.append(len(rig.fd_links(daemon.pid)))
            threads.append(rig.thread_count(daemon.pid))
        loader.close()
    assert max(totals) <= ring + ALLOWED_BYTES, (totals, ring)
    # A slot is touched when it is first needed, which may be epochs later.
    settled = max(totals[: epochs // 2])
    assert totals[-1] - settled < slot + 4 * 2**20, totals
    assert fds[-1] <= fds[0] + 1 and threads[-1] == threads[0]
