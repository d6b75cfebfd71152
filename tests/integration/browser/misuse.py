"""Clients that want to hold the page up: connections that never read, and a proxy that holds back."""

import selectors
import socket
import threading
import time


class NeverRead:
    """Connections that ask for `path` and read nothing of the answer. Refused ones count, too."""

    def __init__(self, port, path, count, addresses=16):
        self.open, self.refused = [], 0
        for number in range(count):
            one = socket.socket()
            one.settimeout(10)
            # A small window, so that the answer stays with the daemon.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.bind((f"127.0.1.{1 + number % addresses}", 0))
            try:
                one.connect(("127.0.0.1", port))
                one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode())
                one.setblocking(False)
                self.open.append(one)
            except OSError:
                self.refused += 1
                one.close()

    def close(self):
        for one in self.open:
            one.close()


class HoldingProxy(threading.Thread):
    """A TCP proxy that hands on what comes from the daemon only once it has `size` bytes of it, or `seconds` have passed."""

    def __init__(self, port, size, seconds):
        super().__init__(daemon=True)
        self.target, self.size, self.seconds, self.stopped = port, size, seconds, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self):
        self.listener.settimeout(0.2)
        while not self.stopped.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, socket.create_connection(("127.0.0.1", self.target)) as server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            held, since = b"", time.monotonic()
            while not self.stopped.is_set():
                for key, _ in ready.select(0.1):
                    try:
                        data = key.fileobj.recv(65536)
                    except OSError:
                        return
                    if key.fileobj is client:
                        if not data:
                            return
                        server.sendall(data)
                    elif not data:
                        client.sendall(held)
                        return
                    else:
                        held += data
                if held and (len(held) >= self.size or time.monotonic() - since > self.seconds):
                    try:
                        client.sendall(held)
                    except OSError:
                        return
                    held, since = b"", time.monotonic()

    def stop(self):
        self.stopped.set()
        self.listener.close()
