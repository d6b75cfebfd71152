"""A BMC for QEMU's ipmi-bmc-extern that knows the power of its machine (DCMI) and little else. It is no meter: watts are what it is told.

    bmc_stub.py SOCKET        listens on this Unix socket, for one QEMU at a time

It is told by the machine itself, with an OEM request (network function 0x30, command 0x01): what it is to say, see `Power.told`. What
it does not know it answers with completion code C1.
"""

import os
import socket
import struct
import sys
import time

# OpenIPMI's "VM" protocol: a message ends with the first byte, a command of the hardware with the second; the third escapes.
MESSAGE, COMMAND, ESCAPE = 0xA0, 0xA1, 0xAA
VERSION, NO_ATTENTION, INTERRUPT = b"\xff\x01", b"\x00", b"\x05"
UNKNOWN = b"\xc1"


class Power:
    """What DCMI's Get Power Reading says."""

    def __init__(self):
        self.watts = 250
        self.mode = 0

    def told(self, data):
        """Watts (two bytes, low one first), then 0: as usual; 1: it does not measure now; 2: no answer; more: this completion code."""
        self.watts, self.mode = struct.unpack("<HB", data)
        return b"\0"

    def reading(self):
        """The response with its completion code; None for none."""
        if self.mode == 2:
            return None
        if self.mode > 2:
            return bytes((self.mode,))
        watts, state = (0, 0) if self.mode else (self.watts, 0x40)
        return b"\0\xdc" + struct.pack("<4H2IB", *[watts] * 4, int(time.time()) & 0xFFFFFFFF, 1000, state)


class Bmc:
    def __init__(self):
        self.power = Power()
        self.enables = 0

    def answer(self, function, command, data):
        """Completion code and data; None for no answer."""
        match function, command:
            case 0x06, 0x01:  # Get Device ID: IPMI 2.0, a chassis device
                return b"\0" + bytes((0x20, 1, 1, 0, 2, 0x80, 0x57, 1, 0, 1, 0))
            case 0x06, 0x2E:  # Set BMC Global Enables
                self.enables = data[0]
                return b"\0"
            case 0x06, 0x2F:
                return b"\0" + bytes((self.enables,))
            case 0x06, 0x30:  # Clear Message Flags
                return b"\0"
            case 0x06, 0x31:  # Get Message Flags
                return b"\0\0"
            case 0x06, 0x37:  # Get System GUID
                return b"\0" + bytes(range(16))
            case 0x2C, 0x01 if data[:1] == b"\xdc":  # DCMI 1.5, with power management
                return b"\0\xdc\1\5\2\0\1\7"
            case 0x2C, 0x02 if data[:2] == b"\xdc\1":
                return self.power.reading()
            case 0x30, 0x01 if len(data) == 3:
                return self.power.told(data)
        return UNKNOWN


def framed(data, end):
    out = bytearray()
    for byte in data:
        out += bytes((ESCAPE, byte | 0x10)) if byte in (MESSAGE, COMMAND, ESCAPE) else bytes((byte,))
    return bytes(out) + bytes((end,))


def checksum(data):
    """The byte that makes the sum of all zero."""
    return bytes((-sum(data) & 0xFF,))


def serve(connection, bmc):
    for command in VERSION, NO_ATTENTION, INTERRUPT:
        connection.sendall(framed(command, COMMAND))
    message, escaped = bytearray(), False
    while received := connection.recv(4096):
        for byte in received:
            if byte == MESSAGE:
                if len(message) >= 4 and sum(message) & 0xFF == 0:
                    sequence, function, command = message[:3]
                    answer = bmc.answer(function >> 2, command, bytes(message[3:-1]))
                    if answer is not None:
                        answer = bytes((sequence, function | 4, command)) + answer
                        connection.sendall(framed(answer + checksum(answer), MESSAGE))
                message.clear()
            elif byte == COMMAND:
                message.clear()
            elif byte == ESCAPE:
                escaped = True
            else:
                message.append(byte & ~0x10 if escaped else byte)
                escaped = False


def main():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(1)
    bmc = Bmc()
    while True:
        connection, _ = listener.accept()
        try:
            serve(connection, bmc)
        except OSError as error:
            print(f"QEMU: {os.strerror(error.errno or 0)}", flush=True)
        connection.close()


main()
