"""bench/compare: what it measures and how it sums up, without any peer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "bench" / "peers"
sys.path.insert(0, str(ROOT / "bench"))

from driver import report, session  # noqa: E402 (bench/ is no package)

# A loader whose batches come from a process that has detached itself and burns a core.
RUNNER = """
import os, subprocess, sys, time
sys.path.insert(0, {peers!r})
import harness

class Batch:
    shape, dtype = (4, 224, 224, 3), "uint8"
    def __getitem__(self, place): return 0
    def mean(self, dtype): return 7.0

BURN = "import time\\nwhile time.process_time() < 30: pass"

def batches():
    while True:
        time.sleep(0.01)
        yield Batch()

def open_stream(spec):
    burner = [sys.executable, "-c", BURN]
    starter = f"import subprocess; subprocess.Popen({{burner!r}}, start_new_session=True)"
    subprocess.run([sys.executable, "-c", starter], check=True)
    return harness.Stream(batches(), burst=2)

harness.main(open_stream, ["pytest"])
"""


def test_a_detached_daemon_is_counted_and_ended(tmp_path):
    script = tmp_path / "run_fake.py"
    script.write_text(RUNNER.format(peers=str(PEERS)))
    spec = {
        "batch_size": 4,
        "dtype": "uint8",
        "seconds": 1.5,
        "warmup_batches": 1,
        "warmup_seconds": 0,
    }
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(spec)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["processes"] == 2
    assert result["timed_images"] % 8 == 0  # whole bursts of two batches
    assert result["cpu_seconds_per_image"] * result["timed_images"] > 0.1
    assert result["pss_growth_bytes"] > 1 << 20
    assert result["mean_value"] == 7.0


def _run(number, rate):
    return {
        "round": number,
        "images_per_second": rate,
        "cpu_seconds_per_image": 1 / rate,
        "first_batch_seconds": 0.5,
        "first_batch_seconds_from_start": 2.0,
        "pss_peak_bytes": 300 << 20,
        "pss_growth_bytes": 100 << 20,
        "versions": {"numpy": "2"},
    }


def test_ratios_are_taken_within_a_round():
    results = {
        1: {"penstock": [_run(1, 1000), _run(2, 500)], "torch": [_run(1, 500), _run(2, 200)]}
    }
    entry = session.summarise(results)[1]["torch"]
    assert entry["images_per_second"] == {"median": 350, "min": 200, "max": 500}
    assert entry["penstock_ratio"] == {"median": 2.25, "min": 2.0, "max": 2.5}


def test_a_peer_without_results_is_left_out_of_the_table():
    summary = session.summarise({2: {"penstock": [_run(1, 1000)], "torch": []}})
    text = report.as_text(summary)
    assert "2 cores" in text
    assert "1000" in text
    assert "PyTorch" not in text


@pytest.mark.parametrize("number", range(6))
def test_every_round_runs_every_peer_once(number):
    names = ["a", "b", "c", "d"]
    assert sorted(session._rotated(names, number)) == names
