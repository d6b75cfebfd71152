"""The machine's own power meters: ACPI and the BMC, and meters that come and go while jouled runs."""

import errno

import machine
from daemon import Jouled, node_energy, settle
from host import PARAMETERS, REST_MW, FakeRapl, assert_close, sh, wait_for
from machine import IPMI, Modules, dcmi_power, meter_file, set_bmc, set_meter
from runner import note

# A look for what is not there every 10 s, and the answers of a BMC that takes its time.
LIMIT_S = 90
WATTS = "kepler_platform_watts"
# Without a usage source: these cases need none, and an emulated machine takes long to load the eBPF programs.
QUICK = '[usage]\nsource = "procfs"\n'


def watts(page, source):
    """The power of the machine on the page; None where the page has none."""
    values = [value for (name, labels), value in page.series.items() if name == WATTS and ("source", source) in labels]
    assert len(values) <= 1, f"{values} from {source}"
    return values[0] if values else None


def wait_watts(jouled, source, true, limit_s=40):
    seen = {}

    def check():
        seen["watts"] = watts(jouled.metrics(), source)
        if true is None or seen["watts"] is None:
            return seen["watts"] is true
        # Energy is in whole microjoules: the power of a window is as exact as that.
        return abs(seen["watts"] - true) < 0.001

    try:
        wait_for(f"{true} W from {source}", check, limit_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {seen['watts']} W") from None


def case_platform_rig_acpi_meter_says_what_it_is_told():
    assert meter_file() is None, "the driver is loaded by itself"
    with Modules("acpi_power_meter"):
        path = wait_for("the driver", meter_file)
        set_meter(137_000)
        wait_for("137 W", lambda: path.read_text() == "137000000\n")
        set_meter(250_500)
        wait_for("250.5 W", lambda: path.read_text() == "250500000\n")
        set_meter(machine.NOT_MEASURED)

        def fails():
            try:
                path.read_text()
            except OSError as error:
                return error.errno == errno.ENODATA
            return False

        wait_for("no data", fails)
        set_meter(137_000)
        note(f"at {path}, accuracy {(path.parent / 'power1_accuracy').read_text().strip()}")


def case_platform_acpi_meter_is_read():
    with Modules("acpi_power_meter"):
        set_meter(137_000)
        with Jouled(config=QUICK) as jouled:
            jouled.wait_state("hwmon", "healthy")
            wait_watts(jouled, "acpi", 137)
            set_meter(222_500)
            wait_watts(jouled, "acpi", 222.5)
            set_meter(machine.NOT_MEASURED)
            jouled.wait_state("hwmon", "failed")
            wait_watts(jouled, "acpi", None)
            set_meter(99_000)
            wait_watts(jouled, "acpi", 99)
            jouled.wait_state("hwmon", "healthy")


def case_platform_acpi_driver_comes_and_goes():
    set_meter(137_000)
    with Jouled(config=QUICK) as jouled:
        jouled.wait_state("hwmon", "unsupported")
        before = jouled.metrics()
        with Modules("acpi_power_meter"):
            wait_watts(jouled, "acpi", 137)
            jouled.wait_state("hwmon", "healthy")
        jouled.wait_state("hwmon", "unsupported", "failed")
        wait_watts(jouled, "acpi", None)
        with Modules("acpi_power_meter"):
            wait_watts(jouled, "acpi", 137)
        jouled.metrics().assert_not_below(before)


def estimated(page):
    return page.state("estimate") == "degraded"


def rapl_comes(source, goes, **parameters):
    rapl = FakeRapl(pkg_mw=REST_MW, core_mw=REST_MW, dram_mw=REST_MW, **parameters)
    try:
        with Jouled(config=QUICK) as jouled:
            jouled.wait_state("rapl-powercap", "unsupported")
            assert estimated(jouled.metrics()), "the estimate does not stand in"
            rapl.load()
            jouled.wait_state(source, "healthy")
            page = jouled.metrics()
            assert page.state("estimate") == "unsupported", "both measure"
            settle()
            start, before = rapl.truth(), jouled.metrics()
            rapl.set(pkg_mw=45_000)
            settle()
            rapl.set(pkg_mw=REST_MW)
            settle()
            true, after = rapl.truth() - start, jouled.metrics()
            after.assert_not_below(page)
            counted = node_energy(after) - node_energy(before)
            off = assert_close("package", counted, true.package, 0.01)
            note(f"{counted:.3f} J of {true.package:.3f} J counted by {source} ({off:+.4%})")
            if goes:
                rapl.unload()
                jouled.wait_state("estimate", "degraded")
                assert jouled.metrics().state(source) == "unsupported"
                rapl.load()
                jouled.wait_state(source, "healthy")
                last = jouled.metrics()
                last.assert_not_below(after)
                assert last.state("estimate") == "unsupported", "both measure"
    finally:
        if PARAMETERS.exists():
            rapl.unload()


def case_platform_powercap_comes_and_goes():
    rapl_comes("rapl-powercap", True, pmu=0)


def case_platform_perf_comes():
    # An open event holds its module: it cannot go.
    rapl_comes("rapl-perf", False)


def bmc():
    """/dev/ipmi0. The driver of the interface stays: the kernel's ACPI keeps it in use."""
    sh("modprobe", "ipmi_si")
    return Modules("ipmi_devintf")


def case_platform_rig_bmc_answers():
    with bmc():
        wait_for(IPMI, IPMI.exists)
        set_bmc("watts 321")
        assert dcmi_power() == 321
        set_bmc("inactive")
        assert dcmi_power() is None, "a power from a BMC that does not measure"
        set_bmc("cc d5")
        assert dcmi_power() == -0xD5
        set_bmc("silent")
        silent = dcmi_power()
        assert silent < 0, f"{silent} W from a BMC that does not answer"
        set_bmc("watts 160")
        assert dcmi_power() == 160
        note(f"silence is completion code {-silent:#x} here")


def case_platform_bmc_is_read():
    device = bmc()
    try:
        with Jouled(config=QUICK + '[meter.ipmi]\nperiod = "5s"\n', known="meter.ipmi") as jouled:
            jouled.wait_state("ipmi", "unsupported")
            device.load()
            wait_for(IPMI, IPMI.exists)
            set_bmc("watts 161")
            wait_watts(jouled, "ipmi", 161)
            jouled.wait_state("ipmi", "healthy")
            set_bmc("watts 287")
            wait_watts(jouled, "ipmi", 287)
            set_bmc("silent")
            # This interface answers in the BMC's place that it took too long.
            jouled.wait_state("ipmi", "degraded", "failed")
            wait_watts(jouled, "ipmi", None)
            set_bmc("watts 140")
            wait_watts(jouled, "ipmi", 140)
            jouled.wait_state("ipmi", "healthy")
    finally:
        device.unload()
