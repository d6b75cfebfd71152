"""Real Docker and Podman (rootful, as a quadlet, rootless): names, image and compose labels of their containers reach the metrics page.

The image is made from the system's busybox: no registry is asked."""

import io
import json
import os
import pwd
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

from d_bus import NAME as BUS
from d_bus import busctl
from e_containers import UNIT, install
from host import sh, wait_for
from install import ensure_running
from runner import Skip, note
from system import DropIn, scrape, show

LIMIT_S = 120
IMAGE = "local/busybox:1"
TAR = Path("/tmp/busybox.tar")
BURN = ["sh", "-c", "while :; do :; done"]
LABELS = ["--label", "com.docker.compose.project=market", "--label", "com.docker.compose.service=web"]
# The booted system has no controller of cgroups, and Podman sets a limit of processes by default.
PODMAN_RUN = ["run", "--detach", "--pids-limit=0", "--network=none"]
# The names of one container, one after the other, and what is done before and after each time that it gets the next one.
NAMES = ["market-web", "market-running", "market-paused", "market-stopped"]
STOPPED = (("stop", "-t0"), ("start",))
RENAMES = [((), ()), (("pause",), ("unpause",)), STOPPED]
QUADLET = Path("/etc/containers/systemd/market-db.container")
USER = "alice"
JOULES = "kepler_container_cpu_joules_total"


def root_tar():
    """A root file system with busybox as its shell."""
    with tarfile.open(TAR, "w") as tar:
        folder = tarfile.TarInfo("bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder, io.BytesIO())
        tar.add("/bin/busybox", "bin/sh")
    TAR.chmod(0o644)
    return str(TAR)


def need(program):
    if not shutil.which(program):
        raise Skip(f"this system has no {program}")


def follow(socket):
    """Starts the helper and waits until it follows this socket."""
    sh("systemctl", "restart", UNIT, timeout=30)
    wait_for(f"{socket} to be followed", lambda: f"{socket}: 0" in show("StatusText", unit=UNIT), 60)


def info(name):
    """Labels of the container with this name; None while it is not on the page."""
    found = scrape().labels("jouled_container_info", container_name=name)
    return found[0] if found else None


def wait_named(name, started, by_helper=True):
    """Waits for joulectl and the page; returns the labels of the page. conmon's arguments may be read before the runtime's list, which alone
    has the image."""
    listed = lambda: any(row["name"] == name for row in json.loads(sh("joulectl", "list", "container", "--json")))
    wait_for(f"the name {name} in joulectl", listed, 60, 0.05)
    note(f"{name}: in joulectl {time.monotonic() - started:.2f} s after the runtime said that it runs")
    return wait_for(f"{name} on the page", lambda: (found := info(name)) and (found["image"] or not by_helper) and found, 60)


def assert_charged(name):
    """The energy of the container with this name rises. A counter that was shown before its name was known has no name, so it is found by
    the id, as the queries of docs/containers.md do."""
    container = ("container_id", info(name)["container_id"])

    def joules():
        found = scrape().series.items()
        return sum(value for (series, labels), value in found if series == JOULES and container in labels)

    before = wait_for(f"energy of {name}", joules, 60)
    wait_for(f"more energy of {name}", lambda: joules() > before, 60)


def assert_on_bus(container, **expected):
    """The properties of a container on the bus."""
    path = busctl("call", BUS, "/org/jouled1", f"{BUS}.Manager", "GetContainer", "s", container).split('"')[1]
    for name, value in expected.items():
        said = busctl("get-property", BUS, path, f"{BUS}.Container", name)
        assert said.split(maxsplit=1)[1].strip() == f'"{value}"', (name, said)
    note(busctl("introspect", BUS, path, f"{BUS}.Container", "--no-legend"))


def assert_renamed(runtime, container, name, renames):
    """A container that has another name is shown by it: also one that was renamed while it was paused or stopped. The helper asks for a
    whole list each minute, so a name that comes by the list alone is too late here. Returns the name that it has at the end."""

    def shown(new):
        rows = json.loads(sh("joulectl", "list", "container", "--json"))
        return [row["name"] for row in rows if row["labels"].get("container_id") == container] == [new]

    for (before, after), new in zip(renames, NAMES[1:], strict=True):
        if before:
            sh(runtime, *before, name, timeout=60)
        sh(runtime, "rename", name, new, timeout=60)
        if after:
            sh(runtime, *after, new, timeout=60)
        started = time.monotonic()
        wait_for(f"the name {new} after rename {before}", lambda: shown(new), 30, 0.05)
        note(f"{runtime} {' '.join(before)}: renamed in joulectl after {time.monotonic() - started:.2f} s")
        name = new
    return name


def case_docker_containers_are_named():
    ensure_running()
    install()
    need("dockerd")
    Path("/etc/docker").mkdir(exist_ok=True)
    # The booted system is itself on an overlay, and has no network to filter.
    Path("/etc/docker/daemon.json").write_text('{"storage-driver": "vfs", "iptables": false, "ip6tables": false, "bridge": "none"}')
    sh("systemctl", "start", "docker", timeout=60)
    try:
        sh("docker", "import", root_tar(), IMAGE, timeout=60)
        follow("/run/docker.sock")
        sh("docker", "run", "--detach", "--network=none", "--name=market-web", *LABELS, IMAGE, *BURN, timeout=60)
        labels = wait_named("market-web", time.monotonic())
        assert (labels["image"], labels["compose_project"], labels["compose_service"]) == (IMAGE, "market", "web"), labels
        assert_charged("market-web")
        assert_on_bus(labels["container_id"], Name="market-web", Image=IMAGE, ComposeProject="market", ComposeService="web")
        name = assert_renamed("docker", labels["container_id"], "market-web", RENAMES)
        assert info(name)["container_id"] == labels["container_id"], info(name)
        assert not info("market-web")
    finally:
        subprocess.run(["docker", "rm", "-f", *NAMES], capture_output=True, timeout=30)
        sh("systemctl", "stop", UNIT, "docker.service", "docker.socket", "containerd", timeout=60)


def case_podman_containers_are_named():
    ensure_running()
    install()
    need("podman")
    sh("podman", "import", root_tar(), IMAGE, timeout=60)
    sh("systemctl", "start", "podman.socket")
    try:
        follow("/run/podman/podman.sock")
        sh("podman", *PODMAN_RUN, "--name=market-web", *LABELS, IMAGE, *BURN, timeout=60)
        labels = wait_named("market-web", time.monotonic())
        assert labels["image"].endswith(IMAGE), labels
        assert (labels["compose_project"], labels["compose_service"]) == ("market", "web"), labels
        assert_charged("market-web")
        assert_renamed("podman", labels["container_id"], "market-web", RENAMES)
    finally:
        subprocess.run(["podman", "rm", "-f", "-i", "-t0", *NAMES], capture_output=True, timeout=30)
        sh("systemctl", "stop", UNIT, "podman.socket", "podman.service", timeout=60)


def case_podman_containers_are_named_without_a_helper():
    """By conmon's arguments, which /proc shows: eBPF reports process ids of the outer machine here."""
    ensure_running()
    need("podman")
    sh("podman", "import", root_tar(), IMAGE, timeout=60)
    with DropIn(config='[usage]\nsource = "procfs"\n'):
        try:
            sh("podman", *PODMAN_RUN, "--name=market-web", IMAGE, *BURN, timeout=60)
            labels = wait_named("market-web", time.monotonic(), by_helper=False)
            assert_charged("market-web")
            # Within a tick, its earlier cgroup may not be known to be gone. Nothing tells of a new name while it runs.
            assert_renamed("podman", labels["container_id"], "market-web", [STOPPED] * 3)
        finally:
            subprocess.run(["podman", "rm", "-f", "-i", "-t0", *NAMES], capture_output=True, timeout=30)


def case_a_quadlet_is_a_container_and_a_unit():
    ensure_running()
    install()
    need("podman")
    if not Path("/usr/lib/systemd/system-generators/podman-system-generator").exists():
        raise Skip("this Podman has no quadlets")
    sh("podman", "import", root_tar(), IMAGE, timeout=60)
    QUADLET.parent.mkdir(parents=True, exist_ok=True)
    QUADLET.write_text(
        f"[Container]\nImage=localhost/{IMAGE}\nPull=never\nContainerName=market-db\nNetwork=none\nPidsLimit=0\n"
        f"Label=com.docker.compose.project=market\nExec=sh -c 'while :; do :; done'\n"
    )
    sh("systemctl", "daemon-reload")
    sh("systemctl", "start", "podman.socket")
    try:
        follow("/run/podman/podman.sock")
        sh("systemctl", "start", "market-db.service", timeout=60)
        labels = wait_named("market-db", time.monotonic())
        assert labels["compose_project"] == "market", labels
        assert_charged("market-db")
        assert scrape().sum("jouled_unit_joules_total", unit="market-db.service") > 0
    finally:
        QUADLET.unlink()
        subprocess.run(["systemctl", "stop", "market-db.service"], capture_output=True, timeout=30)
        sh("systemctl", "stop", UNIT, "podman.socket", "podman.service", timeout=60)
        sh("systemctl", "daemon-reload")


def user_manager():
    """A user with a service manager, as after a login. systemd-logind is not there, so its part is done here. Returns the command that runs
    something as that user.

    A user's container mounts /proc and /sys of its own. The kernel permits that only if they are whole somewhere, and systemd-nspawn hides
    parts of them."""
    for kind in ("proc", "sysfs"):
        folder = Path("/run") / f"whole-{kind}"
        if not folder.exists():
            folder.mkdir()
            sh("mount", "-t", kind, kind, str(folder))
    if USER not in {user.pw_name for user in pwd.getpwall()}:
        sh("useradd", "--create-home", USER)
    uid = pwd.getpwnam(USER).pw_uid
    runtime = Path(f"/run/user/{uid}")
    drop_in = Path(f"/run/systemd/system/user@{uid}.service.d/runtime.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(f"[Service]\nEnvironment=XDG_RUNTIME_DIR={runtime}\n")
    sh("systemctl", "daemon-reload")
    sh("systemctl", "start", f"user-runtime-dir@{uid}.service")
    sh("systemctl", "start", f"user@{uid}.service", timeout=60)
    environment = [f"XDG_RUNTIME_DIR={runtime}", f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus", f"HOME=/home/{USER}"]
    command = ["systemd-run", "--quiet", "--wait", "--pipe", f"--uid={USER}", f"--working-directory=/home/{USER}"]
    return uid, [*command, *(f"--property=Environment={one}" for one in environment)]


def case_rootless_podman_containers_are_named():
    ensure_running()
    install()
    need("podman")
    root_tar()
    uid, as_user = user_manager()
    try:
        sh(*as_user, "podman", "import", str(TAR), IMAGE, timeout=60)
        sh(*as_user, "systemctl", "--user", "start", "podman.socket")
        socket = f"/run/user/{uid}/podman/podman.sock"
        owner = os.stat(socket).st_uid
        assert owner == uid, owner
        follow(socket)
        sh(*as_user, "podman", *PODMAN_RUN, "--name=mine", *LABELS, IMAGE, *BURN, timeout=60)
        labels = wait_named("mine", time.monotonic())
        assert labels["compose_project"] == "market", labels
        assert_charged("mine")
    finally:
        subprocess.run([*as_user, "podman", "rm", "-f", "-t0", "mine"], capture_output=True, timeout=30)
        sh("systemctl", "stop", UNIT, f"user@{uid}.service", timeout=60)
