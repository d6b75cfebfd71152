"""A host that reports a guest's energy on a Unix socket, in the words of docs/guest-protocol.md. It measures nothing."""

import json
import socket
import threading
import time


class GuestHost(threading.Thread):
    """Ends an epoch every `period` seconds, in which the guest drew `watts` by zone."""

    def __init__(self, path, watts, period=1.0):
        super().__init__(daemon=True)
        self.path, self.watts, self.period = path, watts, period
        self.total = {zone: 5e6 for zone in watts}
        self.epoch, self.readers, self.lock, self.stopped = 1_763_846_400, [], threading.Lock(), threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()

    def run(self):
        threading.Thread(target=self._accept, daemon=True).start()
        while not self.stopped.wait(self.period):
            with self.lock:
                self.epoch += 1
                for zone, watts in self.watts.items():
                    self.total[zone] += watts * self.period * 1e6
                for one in list(self.readers):
                    self._send(one)

    def _accept(self):
        while not self.stopped.is_set():
            try:
                client, _ = self.listener.accept()
                request = client.recv(4096)
            except OSError:
                return
            if not request.startswith(b"GET /v1/stream "):
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                client.close()
                continue
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
            with self.lock:
                self.readers.append(client)
                self._send(client)

    def _send(self, client):
        zones = [{"zone": zone, "energy_uj": int(total), "billed": True, "quality": "derived", "window_ns": 1000, "age_ns": 1000}
                 for zone, total in self.total.items()]
        line = json.dumps({
            "protocol": 1, "source": "9f0c" * 8, "generation": "51d2" * 4, "vm": {"id": "8c0d", "name": "web"}, "epoch": self.epoch,
            "period_ns": int(self.period * 1e9), "quantum_uj": 1000, "at_ns": time.time_ns(), "running_ns": time.monotonic_ns(),
            "idle": "apart", "zones": zones}) + "\n"
        try:
            client.sendall(f"{len(line):x}\r\n{line}\r\n".encode())
        except OSError:
            self.readers.remove(client)

    def stop(self):
        self.stopped.set()
        self.listener.close()
        with self.lock:
            for one in self.readers:
                one.close()
