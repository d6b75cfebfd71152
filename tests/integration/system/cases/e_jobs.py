"""A real Slurm of one node: two jobs at the same time, their energies and the line of each at its end."""

import fcntl
import json
import os
import socket
import struct
import subprocess
import time
from pathlib import Path

from host import sh, wait_for
from install import ensure_running
from runner import Skip, note
from system import DropIn

CONTROLLER = "controller"
LINES = Path("/var/lib/jouled/jobs.jsonl")
FREEZER = Path("/run/cgroup/freezer")
MOUNTS = {"v1": FREEZER.parent, "v2": "/sys/fs/cgroup"}
# CPU time of each task.
SECONDS = 6
# The share of a job in the energy of both is that of its CPU time, up to this.
ALLOWED = 0.12
CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=10 State=UP OverSubscribe=FORCE:4
"""
# Each task burns CPU time, and writes at its end how much that was.
JOB = """#!/bin/sh
#SBATCH --job-name={name}
#SBATCH --output=/tmp/{name}.out
for task in $(seq {tasks}); do
    python3 -c 'import time
while time.process_time() < {seconds}: pass' &
done
wait
cat /proc/self/cgroup
"""


def add_address():
    """Gives lo a second address: slurmctld looks up its own with AI_ADDRCONFIG, for which 127.0.0.1 alone is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton("10.99.99.1"))
        fcntl.ioctl(any_socket, 0x8916, address)  # SIOCSIFADDR


class Slurm:
    """slurmctld and slurmd during the `with` block."""

    def __enter__(self):
        if not Path("/usr/sbin/slurmd").exists():
            raise Skip("this system has no slurmd")
        add_address()
        host = sh("hostname", "-s")
        Path("/etc/slurm").mkdir(exist_ok=True)
        Path("/etc/slurm/slurm.conf").write_text(CONFIG.format(host=host, cpus=os.cpu_count()))
        version = "v2" if len(Path("/proc/1/cgroup").read_text().splitlines()) == 1 else "v1"
        note(f"cgroup {version}")
        Path("/etc/slurm/cgroup.conf").write_text(f"CgroupPlugin=cgroup/{version}\nCgroupMountpoint={MOUNTS[version]}\n")
        if version == "v1":
            # On a kernel with v1 hierarchies, Slurm takes processes from none but these.
            FREEZER.mkdir(parents=True)
            sh("mount", "-t", "cgroup", "-o", "freezer", "none", str(FREEZER))
        for folder in ("slurmctld", "slurmd"):
            Path("/var/lib/slurm", folder).mkdir(parents=True, exist_ok=True)
        for unit in ("munge", CONTROLLER, "slurmd"):
            # The packaged unit of slurmctld has a user of its own; here root submits.
            command = ["systemd-run", "--quiet", f"--unit={CONTROLLER}", "slurmctld", "-D"] if unit == CONTROLLER else ["systemctl", "start", unit]
            try:
                sh(*command, timeout=60)
            except RuntimeError as error:
                if unit == "slurmd" and version == "v2":
                    # Its plugin wants controllers, which a container of systemd-nspawn may not have.
                    raise Skip(f"slurmd does not start here: {error}") from error
                raise RuntimeError(f"{error}: {sh('journalctl', '--no-pager', '-o', 'cat', '-n', '12', '-u', unit)}") from error
        return self

    def __exit__(self, *_):
        for unit in ("slurmd", CONTROLLER, "munge"):
            subprocess.run(["systemctl", "stop", unit], capture_output=True, timeout=60)
        subprocess.run(["systemctl", "kill", "-s", "KILL", "slurmstepd.scope"], capture_output=True)
        if FREEZER.exists():
            for folder in sorted(FREEZER.glob("slurm*/**/"), reverse=True):
                subprocess.run(["rmdir", str(folder)], capture_output=True)
            sh("umount", str(FREEZER))

    def submit(self, name, tasks, seconds):
        script = Path(f"/tmp/{name}.sh")
        script.write_text(JOB.format(name=name, tasks=tasks, seconds=seconds))
        return sh("sbatch", "--parsable", str(script))


def jobs(*options):
    rows = json.loads(sh("joulectl", "list", "job", "--json", *options))
    return {row["labels"]["job_id"]: row for row in rows if "job_id" in row["labels"]}


def is_idle():
    said = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, timeout=30)
    return "idle" in said.stdout


def case_jobs_of_slurm_have_their_own_energy():
    ensure_running()
    LINES.unlink(missing_ok=True)
    # By /proc, as eBPF reports the outer machine's process ids, and hierarchies of cgroup v1 are looked up by process.
    # With process_vm_readv the names in a job's environment can be read: docs/jobs.md.
    unit, config = "[Service]\nSystemCallFilter=process_vm_readv\n", f'[export.jobs]\nlog = "{LINES}"\n[usage]\nsource = "procfs"\n'
    with Slurm() as slurm, DropIn(unit=unit, config=config):
        wait_for("the node to be idle", is_idle, 60)
        began = time.monotonic()
        # The second one has two tasks, so twice the work.
        one, two = slurm.submit("one", 1, SECONDS), slurm.submit("two", 2, SECONDS)
        wait_for("both jobs to run", lambda: {one, two} <= set(jobs()), 20)
        settled = lambda rows: {one, two} <= set(rows) and all(rows[job]["settled"] for job in (one, two)) and rows
        ended = wait_for("both jobs to end", lambda: settled(jobs("--ended")), 90)
        first, second = ended[one], ended[two]
        joules = [row["microjoules"] / 1e6 for row in (first, second)]
        cpu = [row["cpu_seconds"] for row in (first, second)]
        note(f"{time.monotonic() - began:.0f} s; {joules[0]:.2f} J and {joules[1]:.2f} J in {cpu[0]:.2f} and {cpu[1]:.2f} s of CPU")
        for row, name in ((first, "one"), (second, "two")):
            labels = row["labels"]
            assert (labels["manager"], labels["user"]) == ("slurm", "root"), labels
            assert (labels["job_name"], labels["partition"]) == (name, "short"), labels
        # The tasks measured their own CPU time. What the shell and Python's start took comes to it; what a process used
        # after the last look at /proc is missing.
        for used, tasks in zip(cpu, (1, 2)):
            assert SECONDS * tasks * 0.8 <= used <= SECONDS * tasks * 1.25 + 1, cpu
        share = joules[1] / sum(joules)
        assert abs(share - cpu[1] / sum(cpu)) < ALLOWED, (joules, cpu)
        lines = wait_for("a line of each job", lambda: len(found := read_lines()) >= 2 and found, 30)
        said = {line["job_id"]: line["microjoules"] for line in lines}
        assert said == {job: ended[job]["microjoules"] for job in (one, two)}, said


def read_lines():
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
