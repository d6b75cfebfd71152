"""The installed service measures all that root does, as its own user, under its own sandbox."""

from pathlib import Path

from daemon import node_energy, settle
from host import FakeRapl, burner, sh, wait_for
from machine import IPMI, Modules, set_bmc, set_meter
from runner import Skip, note
from service import UNIT, Service, install, show

LIMIT_S = 120
ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
# Without a usage source, because an emulated machine takes long to load the eBPF programs.
QUICK = '[usage]\nsource = "procfs"\n'


def unit_joules(page, unit):
    return page.sum("jouled_unit_joules_total", unit=unit, mode="dynamic", zone="package")


def case_service_measures_all_as_jouled():
    install()
    sh("modprobe", "ipmi_si")
    set_meter(137_000)
    with FakeRapl(pkg_mw=2_000, busy_mw=20_000), Modules("acpi_power_meter", "ipmi_devintf"):
        wait_for(IPMI, IPMI.exists)
        set_bmc("watts 161")
        with Service() as jouled:
            status = jouled.status()
            assert status["Uid"].split()[0] == sh("id", "-u", "jouled") and status["NoNewPrivs"] == "1", status
            # Debian's kernel needs more than CAP_PERFMON for perf, unless perf_event_paranoid is lowered: below.
            for source in ("rapl-powercap", "hwmon", "ipmi"):
                jouled.wait_state(source, "healthy")
            # Degraded: this machine counts no cycles.
            jouled.wait_state("bpf", "healthy", "degraded")
            with burner() as burn:
                settle()
                before = jouled.metrics()
                settle()
                after = jouled.metrics()
            charged = unit_joules(after, burn.name) - unit_joules(before, burn.name)
            assert charged > 0, f"{burn.name} was charged nothing"
            programs = {labels["exe"] for labels in after.labels("kepler_process_cpu_joules_total", comm="busybox", zone="package")}
            assert programs == {"/usr/bin/busybox"}, f"programs of root's shells are {programs}"
            note(f"{charged:.2f} J of {burn.name}; {show('StatusText')}")
            note(f"{(int(show('ActiveEnterTimestampMonotonic')) - int(show('ExecMainStartTimestampMonotonic'))) / 1e6:.1f} s from the start to READY")
            errors = sh("journalctl", "-q", "--no-pager", "-o", "cat", "-p", "err", "-u", UNIT)
            assert not [line for line in errors.splitlines() if "rapl-perf" not in line], errors
            bus(burn.name)


def bus(unit):
    """What the README shows, where this jouled is on the bus."""
    if "org.jouled1" not in sh("busctl", "list", "--acquired", "--no-legend"):
        return note("not on the bus")
    path = f"/org/jouled1/unit/{unit.replace('.', '_2e')}"
    said = sh("busctl", "get-property", "org.jouled1", path, "org.jouled1.Unit", "EnergyMicrojoules")
    assert said.startswith("t ") and 0 < int(said.split()[1]) < (1 << 64) - 1, said
    return note(f"{path}: {said}")


def case_service_counts_by_perf_where_the_kernel_lets_it():
    """Debian's and Ubuntu's kernels know kernel.perf_event_paranoid above 2, where CAP_PERFMON is not enough."""
    with FakeRapl(pkg_mw=45_000):
        before = PARANOID.read_text()
        PARANOID.write_text("2")
        try:
            with Service(config=QUICK) as jouled:
                jouled.wait_state("rapl-perf", "healthy")
                note(f"kernel.perf_event_paranoid is {before.strip()} here by default, at 2 RAPL is read by perf")
        finally:
            PARANOID.write_text(before)


def case_service_reads_powercap_by_the_udev_rule():
    with Service(config=QUICK) as jouled:
        assert int(jouled.status()["CapEff"], 16) & 1 << 2 == 0, "CAP_DAC_READ_SEARCH"
        with FakeRapl(pmu=0, pkg_mw=45_000):
            jouled.wait_state("rapl-powercap", "healthy")
            mode = sh("stat", "-c", "0%a %U %G", str(ENERGY))
            assert mode == "0440 root jouled", mode
            note(f"{ENERGY}: {mode}")


def case_service_tmpfiles_open_what_is_there_already():
    with Service(config=QUICK), FakeRapl(pmu=0):
        wait_for("the udev rule", lambda: sh("stat", "-c", "%G", str(ENERGY)) == "jouled")
        sh("chgrp", "root", str(ENERGY))
        sh("chmod", "0400", str(ENERGY))
        sh("systemd-tmpfiles", "--create", "jouled.conf")
        mode = sh("stat", "-c", "0%a %U %G", str(ENERGY))
        assert mode == "0440 root jouled", mode


def case_service_takes_up_a_bmc_whose_driver_comes_late():
    if IPMI.exists():
        raise Skip("the driver is there already")
    sh("modprobe", "ipmi_si")
    device = Modules("ipmi_devintf")
    try:
        with Service(config=QUICK + '[meter.ipmi]\nperiod = "5s"\n') as jouled:
            before, pid = jouled.metrics(), jouled.pid()
            device.load()
            set_bmc("watts 287")
            # The device's major number was not known when the unit started.
            wait_for("another start", lambda: jouled.pid() not in (0, pid))
            wait_for("/metrics", jouled.answers)
            jouled.wait_state("ipmi", "healthy")
            mode = sh("stat", "-c", "0%a %U %G", str(IPMI))
            assert mode == "0600 jouled root", mode
            assert node_energy(jouled.metrics()) >= node_energy(before), "energy was lost"
    finally:
        device.unload()
