"""jouled in a nested VM, and its pages there. Not the jouled of the host."""

from daemon import BINARY, Metrics
from host import wait_for
from runner import Skip, note

DIR = "/run/jouled"
MIRROR = "/run/mirror"
CONFIG = f"""
state_dir = "/var/jouled"
[meter.vsock]
connect = "auto"
[export.powercap]
smooth = false
path = "{MIRROR}"
"""


class GuestJouled:
    """jouled in the VM, during the `with` block."""

    def __init__(self, vm, config=CONFIG):
        if not BINARY.exists():
            raise Skip("no jouled binary was given")
        self.vm = vm
        self.config = config

    def __enter__(self):
        self.vm.sh(f"mkdir -p {DIR} && cat >/run/jouled.toml <<'END'\n{self.config}\nEND")
        self.start()
        return self

    def start(self):
        self.vm.sh(f"RUNTIME_DIRECTORY={DIR} jouled --config /run/jouled.toml >>/run/jouled.log 2>&1 & echo $! >/run/jouled.pid")
        try:
            wait_for("/metrics in the VM", self.answers, limit_s=40, period_s=1)
        except AssertionError:
            note(self.log())
            raise

    def __exit__(self, kind, *_):
        if kind:
            note(self.log())
        self.vm.sh("kill $(cat /run/jouled.pid); sleep 1; kill -9 $(cat /run/jouled.pid) 2>/dev/null; rm -rf /run/jouled /run/jouled.log /run/mirror /var/jouled",
                   check=False)

    def log(self):
        return self.vm.sh("tail -n 15 /run/jouled.log", check=False)

    def answers(self):
        text = self.vm.sh("kill -0 $(cat /run/jouled.pid) && wget -q -O - http://127.0.0.1:28282/metrics || echo gone", check=False)
        return None if text.endswith("gone") else Metrics(text)

    def metrics(self):
        return Metrics(self.vm.sh("wget -q -O - http://127.0.0.1:28282/metrics"))

    def wait_state(self, source, *states, limit_s=30):
        seen = {}

        def check():
            seen["state"] = self.metrics().state(source)
            return seen["state"] in states

        try:
            wait_for(f"{source} in the VM to be {' or '.join(states)}", check, limit_s=limit_s, period_s=1)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen['state']}") from None

    def ctl(self, *arguments):
        return self.vm.sh(f"joulectl --socket {DIR}/jouled.sock {' '.join(arguments)}")
