#!/usr/bin/env python3
"""jouled under everything at once: killed at random moments, with a full and a read-only state folder, meters that vanish, lie and hang, cgroups and
processes that come and go, hostile clients. Counters never fall, ticks are not late, memory and descriptors stay flat, and each start succeeds.

    chaos.py PROGRAM    CHAOS_SECONDS (600): for so long. CHAOS_SEED: the same random choices again.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trouble
from guests import Guests
from watch import Daemon, Watch

SECONDS = float(os.environ.get("CHAOS_SECONDS") or 600)
SEED = int(os.environ.get("CHAOS_SEED") or time.time())
# The last part of the run is one life of the daemon, in which memory and descriptors are compared.
LAST_LIFE = 0.4
# Seconds without hostile clients, twice in that life: sizes are compared then.
PAUSE = 6


def main():
    program = Path(sys.argv[1]).resolve()
    print(f"chaos: {SECONDS:.0f} s, CHAOS_SEED={SEED}", flush=True)
    choose = random.Random(SEED)
    folder = Path(tempfile.mkdtemp(prefix="jouled-chaos-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    daemon = Daemon(program, folder)
    troubles = [kind(daemon, random.Random(choose.random())) for kind in [*trouble.KINDS, Guests]]
    watch = Watch(daemon)
    try:
        run(daemon, watch, troubles, choose)
    finally:
        for one in troubles:
            one.stop()
        daemon.end()
        watch.stop()
        for one in troubles:
            one.clean()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(report(daemon, watch, troubles))


def run(daemon, watch, troubles, choose):
    began = time.monotonic()
    for one in troubles:
        one.prepare()
    daemon.start()
    watch.start()
    for one in troubles:
        one.start()
    killing = began + SECONDS * (1 - LAST_LIFE)
    while time.monotonic() < killing:
        time.sleep(min(choose.expovariate(1 / 3), max(0, killing - time.monotonic())))
        daemon.kill()
        daemon.start()
    # The first third of the last life is its start.
    for until in (SECONDS * (1 - LAST_LIFE * 2 / 3), SECONDS):
        while time.monotonic() < began + until - PAUSE and daemon.alive():
            time.sleep(0.5)
        pause(troubles, watch)
    if not daemon.alive():
        watch.fault(f"the daemon ended by itself with {daemon.process.poll()}: {daemon.log_end()}")


def pause(troubles, watch):
    """Lets the hostile clients go and measures the daemon: what they were given and did not read is memory of theirs."""
    for one in troubles:
        one.pause()
    time.sleep(PAUSE / 2)
    watch.measure(PAUSE / 2)
    for one in troubles:
        one.resume()


def report(daemon, watch, troubles):
    watch.compare_life()
    for one in troubles:
        for fault in one.faults():
            watch.fault(fault)
    print(f"chaos: {daemon.kills} kills, longest start {daemon.longest_start:.1f} s, {watch.pages} pages, "
          f"{watch.counters} counters compared, {watch.came_back} series came back lower than they had ended")
    print(f"chaos: oldest snapshot {watch.oldest:.1f} s, most beyond what load explains {watch.latest:.1f} s; "
          f"resident {watch.resident}, descriptors {watch.descriptors}")
    for one in troubles:
        print(f"chaos: {type(one).__name__}: {one.said()}")
    for fault in watch.faults[:20]:
        print(f"chaos: FAULT: {fault}")
    print(f"chaos: {len(watch.faults)} faults")
    return 1 if watch.faults else 0


if __name__ == "__main__":
    main()
