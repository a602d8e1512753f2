"""The processes of the example: what is built, the databases, the coordinator, the services."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SERVICES = ("order", "stock", "payment")
# How long a busy machine may take over a start.
START_SECONDS_MAX = 60

# Everything is on this machine: no proxy stands in between.
WEB = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class CannotStart(Exception):
    """Why, and what to do about it."""


def programs():
    """The database servers, where Debian keeps them; says which package is missing."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda found: int(found.parent.parent.name))
    also = f"{newest[-1].parent}:{path}" if newest else path
    wanted = {"cargo": (path, "Rust 1.95 or later, https://rustup.rs"),
              "setpriv": (path, "apt-get install util-linux"),
              "postgres": (also, "apt-get install postgresql"), "initdb": (also, "apt-get install postgresql"),
              "psql": (also, "apt-get install postgresql-client"),
              "mariadbd": (path, "apt-get install mariadb-server"),
              "mariadb-install-db": (path, "apt-get install mariadb-server"),
              "mariadb": (path, "apt-get install mariadb-client")}
    found = {name: shutil.which(name, path=where) for name, (where, _) in wanted.items()}
    missing = [f"  `{name}` is missing: {wanted[name][1]}" for name, at in found.items() if at is None]
    if missing:
        raise CannotStart("\n".join(["this machine lacks what the example needs:", *missing]))
    return found


def build(debug, mainstay):
    """Builds order, and the coordinator unless there is one, cargo's progress shown; returns where
    both are, and a Python for the others."""
    profile, packages = [] if debug else ["--release"], ["example-transactions-order"]
    if mainstay is None:
        packages.insert(0, "mainstay")
    elif not os.access(mainstay, os.X_OK):
        raise CannotStart(f"--mainstay {mainstay}: there is no such program")
    print(f"building {' and '.join(packages)} (the first time takes minutes) …", file=sys.stderr, flush=True)
    chosen = [part for package in packages for part in ("-p", package)]
    if subprocess.run(["cargo", "build", *profile, "--locked", *chosen], cwd=ROOT).returncode:
        raise CannotStart("cargo could not build; see above")
    told = subprocess.check_output(["cargo", "metadata", "--format-version=1", "--no-deps", "--locked"], cwd=ROOT)
    target = Path(json.loads(told)["target_directory"])
    built = target / ("debug" if debug else "release")
    mainstay = Path(mainstay).resolve() if mainstay else built / "mainstay"
    return mainstay, built / "example-transactions-order", python(target)


def python(target):
    """A Python with what `requirements.txt` names, in an environment below the target directory."""
    home, requirements = target / "example-transactions-python", HERE / "participants/requirements.txt"
    program, stamp = home / "env/bin/python", home / "installed.txt"
    wanted = requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return program
    home.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", home / "env"])
    if made.returncode:
        raise CannotStart("Python cannot make an environment: apt-get install python3-venv")
    pip = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    if subprocess.run(pip).returncode:
        raise CannotStart(f"{wanted.strip()} could not be installed from the Python package index; see above")
    stamp.write_text(wanted)
    return program


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A child that keeps its command over restarts, and ends with this program whatever happens to it."""

    def __init__(self, setpriv, name, command, log, user=None, environment=None):
        self.name, self.log, self.process = name, log, None
        self.environment = {**os.environ, **(environment or {}), "NO_COLOR": "1"}
        self.environment.pop("XDG_RUNTIME_DIR", None)
        self.command = [setpriv, "--pdeathsig", "KILL", *becoming(user), "--", *command]

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                            env=self.environment, start_new_session=True)

    def signal(self, number):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def until(self, what, is_so):
        """Waits until `is_so`, as long as the process lives."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not is_so():
            if self.process.poll() is not None:
                raise CannotStart(f"{self.name} has ended before {what}; its log is {self.log}")
            if time.monotonic() > deadline:
                raise CannotStart(f"{self.name}: not {what} after {START_SECONDS_MAX} s; its log is {self.log}")
            time.sleep(0.05)


def becoming(user):
    """Databases refuse to run as root: they become the user that their package has made."""
    if user is None or os.geteuid() != 0:
        return []
    return ["--reuid", user, "--regid", user, "--clear-groups"]


class Floor:
    """Both databases, the coordinator and the services, in a temporary folder."""

    def __init__(self, programs, mainstay, order, python):
        self.programs, self.mainstay, self.order, self.python = programs, mainstay, order, python
        self.folder = Path(tempfile.mkdtemp(prefix="mainstay-transactions-"))
        self.folder.chmod(0o755)    # the databases, who may be others, come through to their own folders
        self.ports = {name: free_port() for name in ("control", "postgres", "mariadb", *SERVICES)}
        self.control = f"http://127.0.0.1:{self.ports['control']}"
        self.token = secrets.token_hex(16)
        (self.folder / "token").touch(mode=0o600)
        (self.folder / "token").write_text(self.token + "\n")
        self.processes = {}

    # ---- starting ----

    def start(self):
        self.start_postgres()
        self.start_mariadb()
        self.start_coordinator()
        self.start_services()

    def process(self, name, command, **more):
        log = self.folder / f"{name}.log"
        self.processes[name] = Process(self.programs["setpriv"], name, command, log, **more)
        return self.processes[name]

    def own_folder(self, user):
        folder = self.folder / user
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(folder, user)
        return folder

    def once(self, name, command, user=None, **more):
        """Runs what has to end well; its words are in the log."""
        log = self.folder / f"{name}.log"
        with open(log, "a") as out:
            command = [self.programs["setpriv"], *becoming(user), "--", *command] if becoming(user) else command
            done = subprocess.run(command, stdout=out, stderr=out, cwd="/", **more)
        if done.returncode:
            raise CannotStart(f"{name}: `{Path(command[0]).name}` has failed; its log is {log}")

    def start_postgres(self):
        folder, port = self.own_folder("postgres"), str(self.ports["postgres"])
        data = folder / "data"
        self.once("postgres", [self.programs["initdb"], "--pgdata", data, "--username=owner", "--auth=trust",
                               "--no-sync", "--locale=C", "--encoding=UTF8"], user="postgres")
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder,
                    "max_prepared_transactions": 50}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = self.process("postgres", [self.programs["postgres"], "-D", data, *flags], user="postgres")
        server.start()
        psql = [self.programs["psql"], "-h", "127.0.0.1", "-p", port, "-U", "owner", "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        asked = [*psql, "-d", "postgres", "-c"]
        server.until("ready", lambda: quiet([*asked, "SELECT 1"]))
        self.once("postgres", [*asked, "CREATE DATABASE orders"])
        self.once("postgres", [*psql, "-d", "orders", "-f", HERE / "orders.sql"])

    def start_mariadb(self):
        folder, port = self.own_folder("mysql"), str(self.ports["mariadb"])
        data, place = f"--datadir={folder / 'data'}", {**os.environ, "TMPDIR": str(folder)}
        self.once("mariadb", [self.programs["mariadb-install-db"], "--no-defaults", "--skip-test-db",
                              "--auth-root-authentication-method=normal", data], user="mysql", env=place)
        command = [self.programs["mariadbd"], "--no-defaults", data, f"--socket={folder / 'socket'}",
                   "--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve"]
        server = self.process("mariadb", command, user="mysql", environment={"TMPDIR": str(folder)})
        server.start()
        client = [self.programs["mariadb"], "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", port, "-u", "root"]
        server.until("ready", lambda: quiet([*client, "-e", "SELECT 1"]))
        with open(HERE / "goods.sql") as tables:
            self.once("mariadb", client, stdin=tables)

    def start_coordinator(self):
        text = (HERE / "mainstay.toml.in").read_text()
        words = {"CONTROL": self.ports["control"], "POSTGRES": self.ports["postgres"],
                 "MARIADB": self.ports["mariadb"], "HOME": self.folder}
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        (self.folder / "mainstay.toml").write_text(text)
        # What the reader types: the same program, told where this coordinator runs.
        place = {"XDG_DATA_HOME": str(self.folder)}
        self.typed = self.folder / "bin/mainstay"
        self.typed.parent.mkdir()
        self.typed.write_text(f"#!/bin/sh\nunset XDG_RUNTIME_DIR\n"
                              f"XDG_DATA_HOME='{self.folder}' exec '{self.mainstay}' \"$@\"\n")
        self.typed.chmod(0o755)
        command = [self.mainstay, "dev", "--config", self.folder / "mainstay.toml", "-o", "json"]
        self.process("coordinator", command, environment=place)
        self.restart("coordinator")

    def start_services(self):
        mariadb = str(self.ports["mariadb"])
        order = [self.order, str(self.ports["order"]), self.control, self.folder / "token",
                 f"postgresql://shopkeeper@127.0.0.1:{self.ports['postgres']}/orders",
                 f"mysql://shopkeeper@127.0.0.1:{mariadb}/payment"]
        self.process("order", order)
        # Programs in other languages are registered for as long as `mainstay run` runs them.
        (self.folder / "run.toml").touch()
        for name in ("stock", "payment"):
            port = str(self.ports[name])
            served = [self.python, "-B", HERE / f"participants/{name}.py", port, mariadb]
            self.process(name, [self.mainstay, "run", "--service", name, "--port", port, "--drain", "1s",
                                "--config", self.folder / "run.toml", "--", *served],
                         environment={"XDG_DATA_HOME": str(self.folder)})
        for name in SERVICES:
            self.restart(name)

    def restart(self, name):
        """Starts it, again or for the first time, and waits until it takes part."""
        process = self.processes[name]
        process.start()
        if name == "coordinator":
            process.until("ready with both databases", self.takes_databases)
        else:
            process.until("registered", lambda: self.is_registered(name))

    def takes_databases(self):
        listed = self.seen("/transaction-resources")
        return listed is not None and [row["state"] for row in listed["items"]] == ["ready", "ready"]

    def is_registered(self, name):
        listed = self.seen(f"/registry/default/services/{name}")
        return listed is not None and bool(listed["instances"]) and self.books(name, patient=False) is not None

    # ---- asking ----

    def seen(self, path):
        """What the control API shows, if it answers."""
        request = urllib.request.Request(f"{self.control}/api/v1{path}", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with WEB.open(request, timeout=65) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def transaction(self, gid, wait=""):
        return self.seen(f"/transactions/{gid}{wait}") or {}

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"

    def post(self, name, path, document=None):
        """Posts to a service; what it answers."""
        data = json.dumps(document).encode() if document is not None else b""
        request = urllib.request.Request(self.url(name) + path, data=data, headers={"Content-Type": "application/json"})
        with WEB.open(request, timeout=90) as answer:
            return json.loads(answer.read() or b"null")

    def books(self, name, patient=True):
        """What a service has written down."""
        try:
            with WEB.open(self.url(name) + "/books", timeout=10) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            if patient:
                raise
            return None

    # ---- ending ----

    def stop(self, keep_logs):
        """Ends every process, those who ask before those who are asked."""
        for names, number in ((SERVICES, signal.SIGTERM), (("coordinator",), signal.SIGTERM),
                              (("postgres", "mariadb"), signal.SIGINT)):
            running = [self.processes[name] for name in names if name in self.processes]
            for process in running:
                # MariaDB takes SIGINT for nothing, PostgreSQL SIGTERM for "when all have gone".
                process.signal(signal.SIGTERM if process.name == "mariadb" else number)
            deadline = time.monotonic() + 6
            for process in running:
                if process.process is None:
                    continue
                try:
                    process.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
        if not keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)


def quiet(command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
