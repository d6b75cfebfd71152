"""Guests that mean harm, over hybrid vsock sockets: Unix sockets only. Each is a process that is called `firecracker`, owns the socket of its VM and
connects to jouled's socket beside it, as a VMM does for its guest. One guest is honest, and checks what it is told.

    guests.py FOLDER --id ID SEED [honest]    as a VMM: serves FOLDER/ID.sock until it is killed
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from trouble import Trouble

PORT = 28282
SECRET = b"GET /v1/energy HTTP/1.1\r\nHost: h\r\n\r\n"
TEXTS = [b"", b"GET /v1/energy HTTP/1.1\r\n", SECRET * 40, b"GET /v1/stream HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
         b"GET /v1/model HTTP/1.1\r\nHost: h\r\n\r\n", b"POST /v1/energy HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\nx", b"GET /../../etc/shadow HTTP/1.1\r\n\r\n",
         b"GET /v1/energy HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 20000,
         b"GET /v1/energy HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", b"GET /v1/energy HTTP/1.1\r\nHost: \xff\x1b[31m\r\n\r\n"]


class Guests(Trouble):
    """VMs by name that come and go, flood their channel, read nothing, ask at each other's, and put things in jouled's way."""

    pause_s = 1.0
    COUNT = 6

    def prepare(self):
        self.vms, self.told, self.lines = {}, self.daemon.folder / "honest", []
        self.folder = self.daemon.folder / "vms"
        self.folder.mkdir()
        program = self.daemon.folder / "bin"
        program.mkdir()
        # The name of the executable is what makes a process a VMM.
        self.program = shutil.copy(os.path.realpath(sys.executable), program / "firecracker")
        self.daemon.extra["JOULED_EXPORT__GUEST__HYBRID"] = json.dumps([str(self.folder)])
        self.daemon.extra["JOULED_EXPORT__GUEST__PROFILE"] = "trusted"
        self.spawn("honest", "honest")

    def spawn(self, name, *more):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONHOME": sys.base_prefix, "TOLD": str(self.told)}
        command = [self.program, __file__, folder, "--id", name, str(self.choose.randrange(1 << 30)), *more]
        self.vms[name] = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def once(self):
        name = f"evil{self.choose.randrange(self.COUNT)}"
        old = self.vms.pop(name, None)
        if old:
            old.kill()
            old.wait()
        folder = self.folder / name
        if self.choose.random() < 0.3:
            shutil.rmtree(folder, ignore_errors=True)
        if self.choose.random() < 0.2:
            # In place of its folder: a link out of it, or a socket that nobody serves.
            shutil.rmtree(folder, ignore_errors=True)
            folder.unlink(missing_ok=True)
            folder.symlink_to(self.choose.choice(["/etc", "..", "nowhere", str(self.daemon.state)]))
            return
        if folder.is_symlink():
            folder.unlink()
        self.spawn(name)

    def stop(self):
        super().stop()
        for one in self.vms.values():
            one.kill()
            one.wait()

        self.lines = self.told.read_text().splitlines() if self.told.exists() else []

    def faults(self):
        told = [line for line in self.lines if not line.startswith("FAULT ")]
        return [line[6:] for line in self.lines if line.startswith("FAULT ")] + ([] if told else ["the honest guest was told nothing"])

    def said(self):
        return f"{self.done} VMs began; the honest guest was told {len(self.lines)} objects"


class Guest:
    """What a VMM does for its guest."""

    def __init__(self, folder, name, seed):
        self.folder, self.name, self.choose = folder, name, random.Random(seed)
        self.uds = folder / f"{name}.sock"
        self.uds.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.uds))
        self.listener.listen()
        self.held = []

    def dial(self, path):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(5)
        one.connect(str(path))
        return one

    def own(self):
        return Path(f"{self.uds}_{PORT}")

    def harm(self):
        while True:
            time.sleep(self.choose.expovariate(1 / 0.02))
            try:
                getattr(self, self.choose.choice(["talk", "talk", "talk", "flood", "elsewhere", "obstruct"]))()
            except OSError:
                pass
            while len(self.held) > 40:
                self.held.pop(self.choose.randrange(len(self.held))).close()

    def talk(self):
        one = self.dial(self.own())
        self.held.append(one)
        one.settimeout(0.2)
        one.sendall(self.choose.choice(TEXTS))
        if self.choose.random() < 0.3:
            one.recv(1 << 16)

    def flood(self):
        for _ in range(100):
            self.dial(self.own()).close()

    def elsewhere(self):
        """Another VM's socket: it is not for this process."""
        others = [one for one in self.folder.parent.glob(f"*/*_{PORT}") if one.resolve().parent != self.folder.resolve()]
        if others:
            one = self.dial(self.choose.choice(others))
            one.sendall(SECRET)
            answer = one.recv(1 << 16)
            if answer:
                tell(f"FAULT {self.name} was answered at another VM's socket: {answer[:200]!r}")

    def obstruct(self):
        """jouled's own socket is removed, replaced by a file, a folder or a link; more sockets stand beside it."""
        if self.choose.random() > 0.05:
            return
        own = self.own()
        if own.is_dir():
            own.rmdir()
        else:
            own.unlink(missing_ok=True)
        self.choose.choice([lambda: None, lambda: own.write_text("mine"), own.mkdir, lambda: own.symlink_to("/dev/null")])()
        beside = socket.socket(socket.AF_UNIX)
        self.held.append(beside)
        beside.bind(str(self.folder / f"more{self.choose.randrange(20)}"))
        beside.listen()

    def ask(self):
        """The honest guest: totals of one source and generation never fall, and epochs rise."""
        last = None
        while True:
            time.sleep(0.5)
            try:
                one = self.dial(self.own())
                one.sendall(b"GET /v1/energy HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                answer = b""
                while part := one.recv(1 << 16):
                    answer += part
            except OSError:
                continue
            head, _, body = answer.partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                told = json.loads(body)
                last = self.compare(last, told)
                tell(json.dumps(told["epoch"]))
            elif head and not head.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503")):
                tell(f"FAULT the honest guest was told {head[:100]!r}")

    def compare(self, last, told):
        if told["vm"]["name"] != self.name:
            tell(f"FAULT the honest guest was told of {told['vm']}")
        if last and (last["source"], last["generation"]) == (told["source"], told["generation"]):
            now = {zone["zone"]: zone["energy_uj"] for zone in told["zones"]}
            for zone in last["zones"]:
                if now.get(zone["zone"], 0) < zone["energy_uj"]:
                    tell(f"FAULT {zone['zone']} of the honest guest fell from {zone['energy_uj']} to {now.get(zone['zone'])}")
        return told


def tell(line):
    with open(os.environ["TOLD"], "a") as file:
        file.write(line + "\n")


def main():
    folder, _, name, seed, *more = sys.argv[1:]
    guest = Guest(Path(folder), name, seed)
    # Some work, so that there is energy to tell of.
    threading.Thread(target=guest.ask if more else guest.harm, daemon=True).start()
    while True:
        sum(range(20_000))
        time.sleep(0.01)


if __name__ == "__main__":
    main()
