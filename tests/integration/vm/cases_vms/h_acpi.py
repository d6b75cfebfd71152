"""Guests without an agent: their power as an ACPI power meter, by an unmodified kernel and Debian's node exporter. No jouled in the VM."""

import shlex
import shutil
import struct
import time
from pathlib import Path

from c_channel import BUSY_MW, IDLE_MW, wait_told
from daemon import Jouled
from host import FakeRapl, wait_for
from nested import Domain, Qemu, end_kept, kept, virsh
from runner import note

LIMIT_S = 600
# On a file system with access control lists, and below folders through which libvirt's QEMU gets.
FOLDER = Path("/var/lib/jouled-acpi-test")
DOMAIN_UUID = "2f0c2f5e-27d3-4f0a-9a55-2d8f3e7b1c01"
# What the counter shows at rest: it must not stand still for long.
REST_MW = 200
# The page's device, in the slot of the configuration's default.
DEVICE = "/sys/bus/pci/devices/0000:00:18.0"
READ = "cat /sys/class/hwmon/hwmon*/power1_average /sys/class/hwmon/hwmon*/device/power1_average 2>/dev/null | head -n 1"


def host(profile, **keys):
    keys = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return Jouled(config=f"""
[export.guest]
vsock = "on"
profile = "{profile}"
[export.guest.acpi]
folder = "{FOLDER}"
vms = {{ "{DOMAIN_UUID}" = "libvirt-qemu", metered-qemu = "root" }}
{keys}""")


def setup(jouled, vm):
    """What joulectl says is to be added: the XML, and QEMU's arguments."""
    text = jouled.ctl("guest", "acpi", vm)
    xml = text[text.index("<qemu:commandline"):text.index("</qemu:commandline>")] + "</qemu:commandline>"
    arguments = text.partition("# QEMU alone\n")[2].partition("\n\n")[0]
    return xml, shlex.split(arguments.replace("\\\n", " "))


def metered():
    """A VM of libvirt and one of QEMU alone with power meters. They start while jouled does not run: pages outlive it."""
    if not FOLDER.exists():
        with host("default") as jouled:
            (xml, _), (_, arguments) = setup(jouled, DOMAIN_UUID), setup(jouled, "metered-qemu")
        (FOLDER / "xml").write_text(xml)
        (FOLDER / "arguments").write_text(shlex.join(arguments))
    xml, arguments = (FOLDER / "xml").read_text(), shlex.split((FOLDER / "arguments").read_text())
    domain = kept(lambda name: Domain(name, uuid=DOMAIN_UUID, extra=xml), "metered-domain")
    return domain, kept(lambda name: Qemu(name, extra=arguments), "metered-qemu")


def watts(vm):
    """The power that the VM shows; None where it has no data."""
    text = vm.sh(READ, check=False)
    return int(text) / 1e6 if text.isdigit() else None


def wait_watts(vm, what="power", check=lambda _: True, limit_s=60):
    seen = []

    def look():
        seen.append(watts(vm))
        return seen[-1] is not None and check(seen[-1])

    wait_for(f"{what} in {vm.name}", look, limit_s=limit_s, period_s=1)
    return seen[-1]


def wait_no_data(vm, limit_s):
    wait_for(f"no data in {vm.name}", lambda: watts(vm) is None, limit_s=limit_s, period_s=1)


def page(name):
    """Epoch and milliwatts in a page."""
    return struct.unpack("<IIIIII", (FOLDER / f"{name}.page").read_bytes()[:24])[2:4]


def case_each_guest_shows_its_own_power():
    domain, plain = metered()
    assert (watts(domain), watts(plain)) == (None, None), "jouled does not run, and what it measured is shown"
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), host("trusted") as jouled:
        jouled.wait_vms(domain, plain)
        wait_watts(plain)
        with domain.burning():
            # The nested processor is the machine's: what burns in it has nearly all of the power of a CPU.
            burning = wait_watts(domain, "the power of a busy VM", lambda power: power > BUSY_MW / 4e3)
            idle = wait_watts(plain)
            note(f"busy {burning} W, the other {idle} W; pages: {page(DOMAIN_UUID)}, {page('metered-qemu')}")
            assert idle < burning / 3, f"the idle VM shows {idle} W, the busy one {burning} W"
            domain.sh("prometheus-node-exporter --collector.disable-defaults --collector.hwmon --web.listen-address=127.0.0.1:9100 "
                      ">/run/exporter.log 2>&1 & echo $! >/run/exporter.pid")
            line = wait_for("node exporter's page", lambda: domain.sh(
                "wget -q -O - http://127.0.0.1:9100/metrics 2>/dev/null | grep '^node_hwmon_power_average_watt'", check=False), limit_s=40, period_s=1)
            domain.sh("kill $(cat /run/exporter.pid)")
            note(line)
            assert float(line.split()[-1]) > BUSY_MW / 4e3, line
        table = jouled.ctl("guest", "acpi")
        assert DOMAIN_UUID in table and "metered-qemu" in table and table.count(" W") == 2, table
    # A stop of jouled is no old number.
    wait_no_data(domain, 20)
    wait_no_data(plain, 20)


def case_no_data_after_a_kill_and_numbers_after_a_pause():
    domain, plain = metered()
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), host("trusted") as jouled:
        jouled.wait_vms(domain, plain)
        wait_watts(domain)
        virsh("suspend", domain.name)
        before = page(DOMAIN_UUID)[0]
        wait_for("the page of a paused VM to go on", lambda: page(DOMAIN_UUID)[0] > before + 5)
        virsh("resume", domain.name)
        wait_watts(domain)
        jouled.process.kill()
        jouled.process.wait()
        assert page(DOMAIN_UUID)[1] != 0xffffffff, "a killed jouled wrote to the page"
        # The meter finds out by itself: 30 s of the guest's clock.
        start = time.monotonic()
        wait_no_data(domain, 120)
        wait_no_data(plain, 120)
        note(f"no data {time.monotonic() - start:.0f} s after the kill")
        jouled.start()
        jouled.wait_vms(domain, plain)
        wait_watts(domain)


def case_a_guest_that_writes_to_its_page_changes_nothing():
    domain, plain = metered()
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), host("trusted") as jouled:
        jouled.wait_vms(domain, plain)
        wait_watts(domain)
        address = domain.sh(f"sed -n 3p {DEVICE}/resource | cut -d ' ' -f 1")
        magic = domain.sh(f"devmem {address} 32")
        assert int(magic, 16) == int.from_bytes(b"JOUL", "little"), f"the BAR at {address} has {magic}"
        for offset in range(0, 24, 4):
            domain.sh(f"devmem $(( {address} + {offset} )) 32 0x12345678", check=False)
        assert int(domain.sh(f"devmem {address} 32"), 16) == int(magic, 16), "the guest wrote to its page"
        wait_watts(domain)
        wait_watts(plain)
        first = page("metered-qemu")[0]
        wait_for("the other page to go on", lambda: page("metered-qemu")[0] > first)


def billed_uj(told):
    """Energy of all zones that are in the power of the meter."""
    return sum(zone["energy_uj"] for zone in told["zones"] if zone["billed"])


def case_what_a_guest_integrates_is_its_energy():
    domain, _ = metered()
    with FakeRapl(pmu=0, pkg_mw=REST_MW) as rapl, host("default") as jouled:
        jouled.wait_vms(domain)
        wait_watts(domain, limit_s=90)
        log = f"while :; do echo $(cut -d ' ' -f 1 /proc/uptime) $({READ}); sleep 0.3; done >/run/watts"
        domain.sh(f"({log}) >/dev/null 2>&1 & echo $! >/run/logger.pid")
        first = billed_uj(wait_told(domain))
        with domain.burning():
            rapl.set(pkg_mw=IDLE_MW, busy_mw=BUSY_MW)
            time.sleep(150)
        rapl.set(pkg_mw=REST_MW, busy_mw=0)
        # Two epochs of 10 s: the last energy has come, and its power has gone.
        time.sleep(35)
        last = billed_uj(wait_told(domain))
        domain.sh("kill $(cat /run/logger.pid)")
        samples = [line.split() for line in domain.sh("cat /run/watts").splitlines()]
        assert samples and all(len(sample) == 2 for sample in samples), f"no data in between: {samples[:20]}"
        samples = [(float(at), int(power) / 1e6) for at, power in samples]
        joules = sum(power * (after - at) for (at, power), (after, _) in zip(samples, samples[1:]))
        drawn = (last - first) / 1e6
        note(f"{len(samples)} looks: {joules:.1f} J integrated, {drawn:.1f} J by the channel ({joules / drawn - 1:+.2%})")
        # A step of the power is seen up to one look late: on a busy host that is more of three minutes than of ten.
        late = max(after - at for (at, _), (after, _) in zip(samples, samples[1:]))
        most = max(power for _, power in samples)
        assert drawn > 100 and abs(joules - drawn) < 0.01 * drawn + late * most, (joules, drawn, late)


def case_the_end_of_the_metered():
    """Ends the VMs of this file, and removes their pages."""
    for name in ("metered-domain", "metered-qemu"):
        end_kept(name)
    shutil.rmtree(FOLDER, ignore_errors=True)
