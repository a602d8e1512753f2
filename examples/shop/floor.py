"""The shop's processes: what is built, started, killed and stopped, and what the gateway tells."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SERVICES = ("order", "price", "stock")


class CannotStart(Exception):
    """Why, and what to do about it."""


def build(debug):
    """Builds the gateway and the order service, cargo's progress shown; returns where they are."""
    for tool, package in (("cargo", "Rust 1.95 or later, https://rustup.rs"), ("node", "Node.js 18 or later, e.g. apt-get install nodejs")):
        if not shutil.which(tool):
            raise CannotStart(f"`{tool}` is missing: install {package}")
    profile = [] if debug else ["--release"]
    print("building mainstay and example-order (the first time takes minutes) …", file=sys.stderr, flush=True)
    done = subprocess.run(["cargo", "build", *profile, "--locked", "-p", "mainstay", "-p", "example-order"], cwd=ROOT)
    if done.returncode:
        raise CannotStart("cargo could not build; see above")
    told = subprocess.check_output(["cargo", "metadata", "--format-version=1", "--no-deps", "--locked"], cwd=ROOT)
    return Path(json.loads(told)["target_directory"]) / ("debug" if debug else "release")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def address_of(subject):
    """`price@127.0.0.1:9000` as `127.0.0.1:9000`."""
    return subject.rpartition("@")[2]


class Instance:
    """One process of a service. It keeps its port over restarts."""

    def __init__(self, service, number, command, log):
        self.service, self.label = service, f"{service}#{number}"
        self.command, self.log = command, log
        self.port, self.process = 0, None

    def start(self):
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True)
        ready = self.process.stdout.readline()
        found = re.search(r":(\d+) ready", ready)
        if not found:
            raise CannotStart(f"{self.label} did not start; its log is {self.log.name}")
        self.port = int(found[1])

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def fault(self, **query):
        words = "&".join(f"{key}={value}" for key, value in query.items())
        request = urllib.request.Request(f"http://{self.address}/fault?{words}", method="POST")
        urllib.request.urlopen(request, timeout=2).close()


class Gateway:
    """`mainstay gateway`, and what it tells: its access log, its events, its circuits."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.process = self.url = self.control = None
        self.lock = threading.Lock()
        self.answers = deque()      # (when, service, instance, attempts)
        self.states = {}            # address -> state, as the event log tells it
        self.opened = {}            # address -> how often
        self.events = deque(maxlen=200)
        self.told = 0               # events ever

    def start(self, text):
        config = self.folder / "mainstay.toml"
        config.write_text(text)
        command = [self.binary, "gateway", "--config", config, "--data-dir", self.folder / "data", "-o", "json"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, start_new_session=True, env={**os.environ, "NO_COLOR": "1"})
        ready = self.process.stdout.readline()
        try:
            said = json.loads(ready)
            self.url, self.control = said["gateway"], said["control"]
        except (ValueError, KeyError):
            raise CannotStart("the gateway did not start:\n" + ready + self.process.stdout.read() + self.process.stderr.read()) from None
        threading.Thread(target=self._read_answers, daemon=True).start()
        threading.Thread(target=self._read_events, daemon=True).start()

    def _read_answers(self):
        """The access log: who answered, and after how many attempts."""
        for line in self.process.stdout:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            with self.lock:
                self.answers.append((time.monotonic(), entry.get("mainstay.service"), entry.get("mainstay.instance"),
                                     entry.get("mainstay.attempts", 0)))
                while self.answers and self.answers[0][0] < time.monotonic() - 3:
                    self.answers.popleft()

    def _read_events(self):
        """The event log: circuits that open and close, instances taken out and back."""
        with open(self.folder / "gateway.log", "w") as log:
            for line in self.process.stderr:
                log.write(line)
                log.flush()
                field = dict(re.findall(r'(\w+)="([^"]*)"', line))
                numbers = dict(re.findall(r"(\w+)=([\d.]+)", line))
                with self.lock:
                    if "circuit opened" in line or "circuit changed" in line:
                        subject, state = address_of(field.get("subject", "?")), field.get("to", "?")
                        if state == "open" and self.states.get(subject) not in ("open", "half-open"):
                            self.opened[subject] = self.opened.get(subject, 0) + 1
                        self.states[subject] = state
                        self._tell("circuit", subject, state, field.get("reason", ""))
                    elif "instance ejected" in line:
                        self._tell("ejected", field.get("instance", "?"), numbers.get("seconds", "?"), field.get("rule", ""))
                    elif "instance returned" in line:
                        self._tell("returned", field.get("instance", "?"), "", "")

    def _tell(self, *event):
        self.events.append((time.monotonic(), *event))
        self.told += 1

    def circuits(self):
        """State by address: the control API's word where it has one, else the event log's."""
        with self.lock:
            states = dict(self.states)
        try:
            token = re.search(r'^token = "(.*)"', (self.folder / "data/control.toml").read_text(), re.M)[1]
            request = urllib.request.Request(self.control + "/api/v1/circuit-states", headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=0.5) as answer:
                listed = json.load(answer)
            rows = listed if isinstance(listed, list) else listed.get("items", [])
            states.update({address_of(row["instance"]): row["state"] for row in rows if row.get("instance")})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return states

    def recent(self):
        """Answers of the last three seconds: by instance, and attempts beyond the first by service."""
        by_instance, again = {}, {}
        with self.lock:
            for when, service, instance, attempts in self.answers:
                if when >= time.monotonic() - 3:
                    by_instance[instance] = by_instance.get(instance, 0) + 1
                    again[service] = again.get(service, 0) + max(0, attempts - 1)
        return by_instance, again


class Shop:
    """Two instances of each service behind one gateway, in a temporary folder."""

    def __init__(self, binaries):
        self.folder = Path(tempfile.mkdtemp(prefix="mainstay-shop-"))
        self.log = open(self.folder / "services.log", "w")
        port = free_port()
        commands = {
            "order": [binaries / "example-order", "--gateway", f"http://127.0.0.1:{port}"],
            "price": ["node", HERE / "price/price.mjs"],
            "stock": [sys.executable, HERE / "stock/stock.py"],
        }
        self.instances = {(service, number): Instance(service, number, commands[service], self.log)
                          for service in SERVICES for number in (1, 2)}
        self.gateway = Gateway(binaries / "mainstay", self.folder)
        self.port = port

    def start(self):
        for instance in self.instances.values():
            instance.start()
        text = (HERE / "mainstay.toml.in").read_text().replace("@GATEWAY@", str(self.port))
        for service in SERVICES:
            listed = ", ".join(f'"{i.address}"' for i in self.of(service))
            text = text.replace(f"@{service.upper()}@", listed)
        self.gateway.start(text)

    def of(self, service):
        return [instance for (name, _), instance in self.instances.items() if name == service]

    def named(self, address):
        return next((i.label for i in self.instances.values() if i.address == address), address)

    def stop(self, keep_logs):
        """Ends every process, the gateway first so that nothing is reported as failing."""
        processes = [self.gateway.process, *(i.process for i in self.instances.values())]
        running = [p for p in processes if p is not None and p.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 4
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()
        if not keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)
