"""The machine's own meters, its ACPI power meter and its BMC: how to read them and how to set their values."""

import ctypes
import fcntl
import os
import select
import struct
from pathlib import Path

from host import sh

HWMON = Path("/sys/class/hwmon")
# QEMU's pc-testdev: the ACPI table reads the power here, in mW.
METER_PORT = 0xE0
NOT_MEASURED = 0xFFFF_FFFF

IPMI = Path("/dev/ipmi0")
SEND, RECEIVE = 0x8028690D, 0xC030690B
SYSTEM_INTERFACE, BMC_CHANNEL = 0x0C, 0x0F
# QEMU's isa-debugcon: bytes that are written here are appended to the file with the answers of the BMC.
CONTROL_PORT = 0x402


class Modules:
    """Kernel modules that are loaded during the `with` block; modules that they need stay loaded."""

    def __init__(self, *names):
        self.names = names

    def __enter__(self):
        self.load()
        return self

    def __exit__(self, *_):
        self.unload()

    def load(self):
        for name in self.names:
            sh("modprobe", name)

    def unload(self):
        for name in reversed(self.names):
            if Path("/sys/module", name).exists():
                sh("rmmod", name)


def set_meter(milliwatts):
    """Sets the power that the ACPI power meter measures from now on."""
    with open("/dev/port", "r+b", buffering=0) as port:
        port.seek(METER_PORT)
        port.write(struct.pack("<I", milliwatts))


def meter_file():
    """The file with the value of the ACPI power meter; None where there is none."""
    for place in ("hwmon*/power1_average", "hwmon*/device/power1_average"):
        for path in HWMON.glob(place):
            return path
    return None


class Message(ctypes.Structure):
    _fields_ = [("function", ctypes.c_uint8), ("command", ctypes.c_uint8), ("length", ctypes.c_uint16), ("data", ctypes.c_void_p)]


class Request(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("address_length", ctypes.c_uint32), ("id", ctypes.c_long), ("message", Message)]


class Receive(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("address", ctypes.c_void_p), ("address_length", ctypes.c_uint32), ("id", ctypes.c_long),
                ("message", Message)]


def ipmi(function, command, data=b"", limit_s=20):
    """Asks the BMC through the kernel's driver: completion code and data."""
    address = ctypes.create_string_buffer(struct.pack("<ihB", SYSTEM_INTERFACE, BMC_CHANNEL, 0), 40)
    body = ctypes.create_string_buffer(bytes(data), max(1, len(data)))
    answer = ctypes.create_string_buffer(300)
    fd = os.open(IPMI, os.O_RDWR)
    try:
        pointer = ctypes.addressof
        fcntl.ioctl(fd, SEND, Request(pointer(address), 8, 1, Message(function, command, len(data), pointer(body))))
        assert select.select([fd], [], [], limit_s)[0], f"no answer in {limit_s} s"
        received = Receive(0, pointer(address), 40, 0, Message(0, 0, 300, pointer(answer)))
        fcntl.ioctl(fd, RECEIVE, received)
        return answer.raw[: received.message.length]
    finally:
        os.close(fd)


def set_bmc(words):
    """Sets the answers of the BMC from now on: `watts 137`, `inactive`, `cc d5`, `silent`; bmc.py lists them all."""
    with open("/dev/port", "r+b", buffering=0) as port:
        for byte in f"{words}\n".encode():
            port.seek(CONTROL_PORT)
            port.write(bytes((byte,)))


def dcmi_power():
    """Get Power Reading: watts, None where it does not measure, or the completion code as a negative number."""
    said = ipmi(0x2C, 0x02, b"\xdc\x01\0\0")
    if said[0]:
        return -said[0]
    return struct.unpack_from("<H", said, 2)[0] if said[18] & 0x40 else None
