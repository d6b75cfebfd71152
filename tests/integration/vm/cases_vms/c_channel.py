"""The guest channel over vsock, as docs/guest-protocol.md describes it: answers to a VM, and requests that get none. No jouled in the VM."""

import json
import subprocess
import time

from daemon import Jouled, settle
from host import FakeRapl, wait_for
from nested import VSK, Domain, Qemu, kept, parse_http
from runner import note

LIMIT_S = 400
IDLE_MW, BUSY_MW = 2_000, 20_000
# Two ticks, an epoch, and what emulation adds. Less than the 10 s after which jouled takes a counter that stands still beside busy CPUs for dead.
QUIET_S = 5


def host(general="default", keys="", **profiles):
    """jouled with the channel open; profiles by UUID."""
    config = f'[export.guest]\nvsock = "on"\nprofile = "{general}"\n{keys}'
    for uuid, profile in profiles.items():
        config += f'[export.guest.vm."{uuid}"]\nprofile = "{profile}"\n'
    return Jouled(config=config)


def told(vm):
    """The answer of the guest channel to the VM."""
    status, head, body = vm.get("/v1/energy")
    assert status == 200, f"{vm.name} got {status} {head} {body}"
    return json.loads(body)


def wait_told(vm):
    def ask():
        status, _, body = vm.get("/v1/energy")
        return status == 200 and json.loads(body)

    return wait_for(f"{vm.name} to get its energy", ask, period_s=1)


def quiet(rapl):
    """Nothing is drawn from here on, and what was drawn has arrived everywhere. Only for a few seconds."""
    rapl.set(pkg_mw=0, core_mw=0, dram_mw=0, busy_mw=0)
    time.sleep(QUIET_S)


def zone(told, name="package"):
    [found] = [zone for zone in told["zones"] if zone["zone"] == name]
    return found


def case_each_is_told_its_own():
    bare, tiny = kept(Qemu, "bare"), kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW) as rapl, host("trusted") as jouled:
        jouled.wait_vms(bare, tiny)
        for vm in (bare, tiny):
            wait_told(vm)
        quiet(rapl)
        page, first = jouled.metrics(), {vm: told(vm) for vm in (bare, tiny)}
        with tiny.burning():
            rapl.set(pkg_mw=IDLE_MW, busy_mw=BUSY_MW)
            time.sleep(5)
        quiet(rapl)
        after, last = jouled.metrics(), {vm: told(vm) for vm in (bare, tiny)}
        drawn = {}
        for vm in (bare, tiny):
            one, two = first[vm], last[vm]
            assert two["protocol"] == 1 and two["vm"] == {"id": vm.uuid, "name": vm.name}, two
            assert (one["source"], one["generation"]) == (two["source"], two["generation"]), (one, two)
            assert two["epoch"] > one["epoch"] and two["running_ns"] > one["running_ns"] and two["at_ns"] > one["at_ns"]
            assert two["period_ns"] == 1_000_000_000 and two["quantum_uj"] == 1000 and two["idle"] == "apart", two
            for entry in two["zones"]:
                assert entry["energy_uj"] % two["quantum_uj"] == 0, entry
            assert zone(two)["billed"] and zone(two)["quality"] == "measured", two
            drawn[vm] = zone(two)["energy_uj"] - zone(one)["energy_uj"]
            by_host = after.uj("kepler_vm_cpu_joules_total", vm_id=vm.uuid, zone="package") - page.uj("kepler_vm_cpu_joules_total", vm_id=vm.uuid, zone="package")
            note(f"{vm.name} was told {drawn[vm]} uJ more, the host says {by_host} uJ more")
            # What is carried to a later epoch, before and after, is each less than the quantum.
            assert abs(by_host - drawn[vm]) < two["quantum_uj"], f"{vm.name} was told {drawn[vm]} uJ, the host says {by_host} uJ"
        assert first[bare]["source"] != first[tiny]["source"], "two VMs can tell that they are on one host"
        assert drawn[tiny] > 2 * drawn[bare] > 0, drawn


def case_a_process_of_the_host_is_refused():
    bare = kept(Qemu, "bare")
    subprocess.run(["modprobe", "vsock_loopback"], check=True)
    with FakeRapl(pmu=0), host() as jouled:
        jouled.wait_vms(bare)
        wait_told(bare)
        for cid in ("1", "2"):
            asked = subprocess.run([VSK, cid, "28282"], input=b"GET /v1/energy HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n",
                                   capture_output=True, timeout=15)
            assert b"HTTP" not in asked.stdout, f"by CID {cid} a process of the host was told {asked.stdout}"


def case_profiles():
    bare, tiny = kept(Qemu, "bare"), kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), host(**{bare.uuid: "trusted", tiny.uuid: "trusted"}) as jouled:
        jouled.wait_vms(bare, tiny)
        # A user of the host can start a QEMU with any UUID: only libvirt's scope vouches for it.
        assert wait_told(tiny)["period_ns"] == 1_000_000_000
        assert wait_told(bare)["period_ns"] == 10_000_000_000
    with FakeRapl(pmu=0), host(**{bare.uuid: "off", tiny.uuid: "multi-tenant"}) as jouled:
        jouled.wait_vms(bare, tiny)
        assert wait_for("403", lambda: bare.get("/v1/energy")[0] == 403)
        answer = wait_told(tiny)
        assert (answer["period_ns"], answer["quantum_uj"]) == (60_000_000_000, 10_000_000), answer


def case_requests():
    tiny = kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), host("trusted") as jouled:
        jouled.wait_vms(tiny)
        wait_told(tiny)
        status, _, body = tiny.get("/metrics")
        assert status == 200 and tiny.uuid not in kept(Qemu, "bare").get("/metrics")[2], body
        assert "node" not in body.replace("node_name", ""), f"something of the host: {body}"
        assert tiny.get("/")[0] == 404 and tiny.get("/v1/energy/..")[0] == 404
        answer = tiny.sh("printf 'POST /v1/energy HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' | timeout 10 vsk 2 28282", check=False)
        assert parse_http(answer)[0] == 405, answer
        # Lines of the stream, by the chunk.
        lines = tiny.sh("printf 'GET /v1/stream HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n' | timeout 6 vsk 2 28282", check=False).splitlines()
        objects = [json.loads(line) for line in lines if line.startswith("{")]
        epochs = [line["epoch"] for line in objects]
        assert len(epochs) >= 3 and sorted(set(epochs)) == epochs, epochs
        totals = [zone(line)["energy_uj"] for line in objects]
        assert sorted(totals) == totals, totals
        note(f"{len(epochs)} lines in 6 s")


def case_a_greedy_guest_harms_nobody():
    bare, tiny = kept(Qemu, "bare"), kept(Domain, "tiny")
    with FakeRapl(pmu=0), host("trusted") as jouled:
        jouled.wait_vms(bare, tiny)
        wait_told(tiny)
        bare.sh("timeout 20 vsk hold 2 28282 200 >/run/held 2>&1 & sleep 8")
        held = bare.sh("cat /run/held")
        connected, open_now = (int(word) for word in held.replace(",", "").split() if word.isdigit())
        note(held)
        assert connected >= 4 and open_now <= 4, held
        start = time.monotonic()
        told(tiny)
        note(f"the other was answered in {time.monotonic() - start:.2f} s")


def case_privileged_source_ports():
    tiny = kept(Domain, "tiny")
    with FakeRapl(pmu=0), host("trusted", keys="privileged_ports = true\n") as jouled:
        jouled.wait_vms(tiny)
        wait_for("an answer to port 700", lambda: tiny.get("/v1/energy", source_port=700)[0] == 200, period_s=1)
        assert tiny.get("/v1/energy")[0] is None, "a request from an ordinary port was answered"


def case_neither_a_new_life_nor_a_new_owner_of_its_cid_goes_on():
    cid = 77
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), host("trusted") as jouled:
        with Domain("first", cid=cid) as first:
            before = wait_told(first)
            with first.burning():
                time.sleep(4)
            settle()
            burnt = told(first)
            assert burnt["generation"] == before["generation"] and zone(burnt)["energy_uj"] > zone(before)["energy_uj"], (before, burnt)
            first.stop()
            first.start()
            again = wait_told(first)
            assert again["vm"] == burnt["vm"], (burnt, again)
            assert again["generation"] != burnt["generation"], (burnt, again)
            assert again["running_ns"] < burnt["running_ns"] + 60_000_000_000, (burnt, again)
        with Domain("second", cid=cid) as second:
            other = wait_told(second)
            assert other["vm"] == {"id": second.uuid, "name": "second"}, other
            assert other["source"] != again["source"] and other["generation"] != again["generation"], (again, other)
            by_host = jouled.metrics().uj("kepler_vm_cpu_joules_total", vm_id=second.uuid, zone="package")
            assert zone(other)["energy_uj"] <= by_host, (other, by_host)
            note(f"told: {zone(burnt)['energy_uj']} uJ, started anew {zone(again)['energy_uj']} uJ, the next with its CID {zone(other)['energy_uj']} uJ")
