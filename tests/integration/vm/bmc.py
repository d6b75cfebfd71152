#!/usr/bin/env python3
"""A BMC for QEMU's ipmi-bmc-extern: DCMI power readings as a test wants them. Not a whole BMC.

QEMU connects (or is connected to through a Unix socket):

    bmc.py --listen 127.0.0.1:PORT --control FILE
    qemu … -chardev socket,id=ipmi0,host=127.0.0.1,port=PORT,reconnect=10 \\
           -device ipmi-bmc-extern,id=bmc0,chardev=ipmi0 -device isa-ipmi-kcs,bmc=bmc0,irq=5
    bmc.py --listen unix:SOCKET --control FILE
    qemu … -chardev socket,id=ipmi0,path=SOCKET,reconnect=10 …

FILE is read at each request and may change or grow at any time: its last line counts, while it is written the one before. It has one
word or two:

    watts N      a power reading of N watts
    inactive     power measurement is switched off: the state's bit 6 is clear
    cc HH        this completion code to a power reading (hexadecimal)
    short N      a power reading of N bytes, wrong if not 18
    silent       no answer to a power reading; other commands are answered
    late S       the answer comes after S seconds (decimal), with the last watts
    frozen N     N watts with a time stamp that does not change
    nodcmi N     no DCMI, and a sensor "Pwr Consumption" of N watts in steps of 4 W

--port-file FILE writes the port that was taken (for --listen 127.0.0.1:0). --log shows each request. --self-test speaks the
protocol to itself and ends.
"""
import argparse
import os
import socket
import struct
import sys
import tempfile
import threading
import time

# OpenIPMI's serial protocol "VM": a message or a command ends with its own byte, which is escaped elsewhere.
MESSAGE, COMMAND, ESCAPE = 0xA0, 0xA1, 0xAA
# Commands of the hardware: the protocol's version, no more attention, and that the BMC has started.
VERSION = b"\xff\x01"
# DCMI, among group extensions.
GROUP = 0xDC


def pack(body, end):
    out = bytearray()
    for byte in body:
        out += bytes((ESCAPE, byte | 0x10)) if byte in (MESSAGE, COMMAND, ESCAPE) else bytes((byte,))
    return bytes(out) + bytes((end,))


def message(sequence, netfn, lun, command, data):
    body = bytes([sequence, netfn << 2 | lun, command]) + data
    return pack(body + bytes([-sum(body) & 0xFF]), MESSAGE)


class Frames:
    """Bytes in, (end, body) out."""

    def __init__(self):
        self.body, self.escaped = bytearray(), False

    def feed(self, data):
        for byte in data:
            if byte in (MESSAGE, COMMAND):
                body, self.body, self.escaped = bytes(self.body), bytearray(), False
                yield byte, body
            elif byte == ESCAPE:
                self.escaped = True
            else:
                self.body.append(byte & ~0x10 if self.escaped else byte)
                self.escaped = False


def record(name):
    """A Full Sensor Record: watts, 4 W a step, sensor 7 of the board."""
    body = bytearray(48)
    body[0:4] = b"\x01\x00\x51\x01"
    body[5], body[7], body[8], body[12], body[13] = 0x20, 7, 7, 0x0B, 1
    body[21], body[24], body[47] = 6, 4, 0xC0 | len(name)
    body += name
    body[4] = len(body) - 5
    return bytes(body)


class Bmc:
    def __init__(self, control, log=False):
        self.control, self.log = control, log
        self.enables, self.watts, self.frozen = 0x08, 0, None
        self.records = [record(b"Pwr Consumption")]

    def mode(self):
        try:
            with open(self.control) as file:
                lines = file.read().rpartition("\n")
        except FileNotFoundError:
            lines = ("", "", "")
        # A line that others follow is whole; a file of one line may have no end.
        words = (lines[0].rpartition("\n")[2] if lines[1] else lines[2]).split()
        return words[0] if words else "inactive", words[1] if len(words) > 1 else "0"

    def app(self, command, data):
        if command == 0x01:  # Get Device ID: IPMI 2.0, with sensor records.
            return b"\0" + bytes([0x20, 1, 1, 0, 0x02, 0x83, 0x57, 0x01, 0x00, 0x34, 0x12])
        if command == 0x2E:
            self.enables = data[0] if data else 0
            return b"\0"
        if command == 0x2F:
            return b"\0" + bytes([self.enables])
        return {
            0x04: b"\0\x55\0",  # Self test: passed.
            0x08: b"\0" + bytes(range(16)),
            0x22: b"\0",
            0x24: b"\0",
            0x25: b"\0" + bytes(8),
            0x30: b"\0",  # Clear message flags.
            0x31: b"\0\0",
            0x37: b"\0" + bytes(range(16)),
            0x42: b"\xcc" if data and data[0] & 15 not in (0xE, 0xF) else b"\0\x0f\x0c\x05\0\xf2\x1b\0\0\0",
        }.get(command, b"\xc1")

    def storage(self, command, data):
        if command == 0x20:
            return b"\0\x51" + struct.pack("<HHIIB", len(self.records), 0, 0, 0, 2)
        if command == 0x22:
            return b"\0\x01\x00"
        if command == 0x23 and len(data) == 6:
            body, begin, count = self.records[0], data[4], data[5]
            if data[2:4] not in (b"\0\0", b"\1\0"):
                return b"\xcb"
            if begin + count > len(body) or count > 32:
                return b"\xca"
            return b"\0\xff\xff" + body[begin : begin + count]
        return b"\xc1"

    def dcmi(self, command, data, word, value):
        if word == "nodcmi" or data[:1] != bytes([GROUP]):
            return b"\xc1"
        if command == 0x01:
            body = {1: b"\0\1\7", 2: bytes(5), 3: b"\x20\0", 4: b"\0\xff\xff", 5: b"\x01\x05"}.get(data[1] if len(data) > 1 else 0)
            return b"\xc9" if body is None else b"\0" + bytes([GROUP, 1, 5, 2]) + body
        if command != 0x02:
            return b"\xc1"
        if word == "silent":
            return None
        if word == "cc":
            return bytes([int(value, 16)])
        if word in ("watts", "frozen"):
            self.watts = int(value)
        if word == "late":
            time.sleep(float(value))
        now = int(time.time())
        self.frozen = (self.frozen or now) if word == "frozen" else None
        w, state = self.watts, 0 if word == "inactive" else 0x40
        body = bytes([GROUP]) + struct.pack("<HHHHIIB", w, w, w, w, self.frozen or now, 1000, state)
        if word == "short":
            body = (body + bytes(64))[: int(value)]
        return b"\0" + body

    def answer(self, netfn, command, data):
        """Completion code and data; None: no answer."""
        word, value = self.mode()
        if netfn == 0x06:
            return self.app(command, data)
        if netfn == 0x00:  # Chassis: it is on.
            return {0x00: b"\0\0\x20\x20\x20\x20", 0x01: b"\0\1\0\0"}.get(command, b"\xc1")
        if netfn == 0x0A:
            return self.storage(command, data)
        if netfn == 0x04 and command == 0x2D and word == "nodcmi":
            return b"\0" + bytes([int(value) // 4 & 0xFF, 0xC0, 0]) if data == b"\7" else b"\xcb"
        if netfn == 0x2C:
            return self.dcmi(command, data, word, value)
        return b"\xc1"

    def serve(self, io):
        io.sendall(pack(VERSION, COMMAND) + pack(b"\0", COMMAND) + pack(b"\5", COMMAND))
        frames = Frames()
        while data := io.recv(4096):
            for end, body in frames.feed(data):
                # Commands are of the machine's power and reset, which are not this BMC's business.
                if end == COMMAND or len(body) < 4 or sum(body) & 0xFF:
                    continue
                sequence, netfn, lun, command = body[0], body[1] >> 2, body[1] & 3, body[2]
                answer = self.answer(netfn, command, body[3:-1])
                if self.log:
                    told = "nothing" if answer is None else answer.hex()
                    print(f"{netfn:02x} {command:02x} {body[3:-1].hex()} -> {told}", flush=True)
                if answer is not None:
                    io.sendall(message(sequence, netfn | 1, lun, command, answer))


def listen(address):
    if address.startswith("unix:"):
        path = address[5:]
        if os.path.exists(path):
            os.unlink(path)
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
    else:
        host, port = address.rsplit(":", 1)
        server = socket.create_server((host, int(port)))
    server.listen(1)
    return server


def run(server, bmc):
    while True:
        io, _ = server.accept()
        with io:
            try:
                bmc.serve(io)
            except ConnectionError:
                pass


def self_test():
    def set_mode(text):
        with open(control + ".new", "w") as file:
            file.write(text)
        os.rename(control + ".new", control)

    def ask(netfn, command, data=b"", timeout=5.0):
        nonlocal sequence
        # Sequence numbers that have to be escaped are among these.
        sequence = (sequence + 1) % 256
        io.settimeout(timeout)
        io.sendall(message(sequence, netfn, 0, command, data))
        while True:
            try:
                data = io.recv(4096)
            except TimeoutError:
                return None
            for end, body in frames.feed(data):
                if end == MESSAGE:
                    assert sum(body) & 0xFF == 0 and body[:3] == bytes([sequence, (netfn | 1) << 2, command]), body.hex()
                    return body[3:-1]
                hellos.append(body)

    with tempfile.TemporaryDirectory() as folder:
        control = os.path.join(folder, "control")
        server = listen("127.0.0.1:0")
        threading.Thread(target=run, args=(server, Bmc(control)), daemon=True).start()
        io, frames, sequence, hellos = socket.create_connection(server.getsockname()), Frames(), 0x9C, []
        power = lambda timeout=5.0: ask(0x2C, 2, b"\xdc\1\0\0", timeout)
        assert ask(0x06, 0x01)[:2] == b"\0\x20"
        assert hellos[0] == VERSION, hellos
        assert ask(0x2C, 1, b"\xdc\1")[6] & 1 == 1
        for watts in (137, 0xA0, 0xA1AA, 65535):
            set_mode(f"watts {watts}")
            got = power()
            assert len(got) == 19 and got[0] == 0 and got[1] == GROUP and got[18] & 0x40, got.hex()
            assert struct.unpack("<H", got[2:4])[0] == watts, got.hex()
        for _ in range(256):
            assert ask(0x06, 0x31) == b"\0\0"
        set_mode("inactive")
        assert power()[18] & 0x40 == 0
        set_mode("cc d5")
        assert power() == b"\xd5"
        set_mode("short 5")
        assert len(power()) == 6
        set_mode("frozen 99")
        first = power()
        time.sleep(1.1)
        assert power() == first
        set_mode("silent")
        assert power(0.3) is None
        assert ask(0x06, 0x31) == b"\0\0"
        set_mode("late 0.5")
        assert power(0.1) is None
        time.sleep(0.6)
        # What came late is of another number.
        late = [body for end, body in frames.feed(io.recv(4096)) if end == MESSAGE]
        assert len(late) == 1 and late[0][0] == sequence
        set_mode("nodcmi 136")
        assert power() == b"\xc1"
        head = ask(0x0A, 0x23, b"\1\0\0\0\0\x16")
        assert head[0:3] == b"\0\xff\xff" and head[3 + 21] == 6
        assert ask(0x04, 0x2D, b"\7")[1] * 4 == 136
    print("ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", metavar="HOST:PORT|unix:PATH", help="where QEMU connects")
    parser.add_argument("--control", metavar="FILE", help="what to answer")
    parser.add_argument("--port-file", metavar="FILE", help="write the TCP port here")
    parser.add_argument("--log", action="store_true", help="show requests and answers")
    parser.add_argument("--self-test", action="store_true", help="test this program and end")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if not arguments.listen or not arguments.control:
        parser.error("--listen and --control are needed")
    server = listen(arguments.listen)
    if arguments.port_file:
        with open(arguments.port_file + ".new", "w") as file:
            file.write(str(server.getsockname()[1]))
        os.rename(arguments.port_file + ".new", arguments.port_file)
    try:
        run(server, Bmc(arguments.control, arguments.log))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    sys.exit(main())
