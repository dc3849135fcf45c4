"""A trainer in a process of its own: ``trainer.py ORDER``, a JSON object.

Prints a line of JSON per batch: epoch, step, ids, pixels (SHA-256), at (CLOCK_MONOTONIC).

    dataset, loader   arguments of penstock.DataLoader; transforms are added here
    epochs            how many to run; 0: without end
    batches           end after so many, 0: never
    pace              "free", or "asked": each batch waits for a line on standard input
    at_batch, does    before batch `at_batch` of the run it does: "raise", "exit", "fork" (a child
                      that holds everything it inherited until it is killed; its pid is printed on
                      standard error), "interrupt" (KeyboardInterrupt as in a notebook: caught, and
                      the epoch iterated again from the same loader)
    step_seconds      how long a training step takes
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import penstock
import rig
from penstock import transforms as T


def make_loader(order):
    arguments = {
        "output": "numpy",
        "transforms": [T.RandomResizedCrop(32), T.RandomHorizontalFlip()],
        **order.get("loader", {}),
    }
    return penstock.DataLoader(order["dataset"], **arguments)


def say(batch):
    epoch, step, ids, pixels = rig.facts(batch)
    line = {"epoch": epoch, "step": step, "ids": ids, "pixels": pixels, "at": time.monotonic()}
    print(json.dumps(line), flush=True)


def hold_in_child():
    """Fork a child that keeps the socket, the ring and everything else open."""
    pid = os.fork()
    if pid == 0:
        os.close(1)
        os.close(2)
        while True:
            signal.pause()
    print(f"child {pid}", file=sys.stderr, flush=True)


def do(what):
    if what == "raise":
        raise RuntimeError("an exception in the loop")
    if what == "exit":
        sys.exit(7)
    if what == "interrupt":
        signal.raise_signal(signal.SIGINT)
    if what == "fork":
        hold_in_child()


def train(loader, order):
    taken = 0
    epochs = order.get("epochs", 1)
    while epochs == 0 or loader.epoch < epochs:
        for batch in loader:
            if order.get("pace", "free") == "asked":
                sys.stdin.readline()
            if taken == order.get("at_batch", -1):
                do(order["does"])
            say(batch)
            taken += 1
            if order.get("step_seconds"):
                time.sleep(order["step_seconds"])
            if taken == order.get("batches", 0):
                return


def main():
    order = json.loads(sys.argv[1])
    loader = make_loader(order)
    try:
        train(loader, order)
    except KeyboardInterrupt:
        if order.get("does") != "interrupt":
            raise
        train(loader, {**order, "at_batch": -1})


if __name__ == "__main__":
    main()
