"""A service that takes part in transactions, by plain HTTP: Python's standard library and a driver.

The coordinator calls `POST /path` with the payload and says in headers what for: `mainstay-gid`,
`mainstay-branch`, `mainstay-op`, `mainstay-mode`. It calls again until it has an answer, and an undo
may come before what it undoes. So each call writes rows of the *barrier* in the same local
transaction as its own statements, and the rows tell what to do. The answer is a status:

    2xx done      409 no, for good      425 still at it      anything else: not known, ask again
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pymysql

# What an undo undoes: it takes that one's place, should it not have come yet.
UNDONE = {"compensate": ["action"], "rollback": ["action", "prepare"], "cancel": ["try"]}

INSERT = "INSERT IGNORE INTO mainstay_barrier (mode, gid, branch, op, seq, reason) VALUES (%s, %s, %s, %s, '01', %s)"
REASON = "SELECT reason FROM mainstay_barrier WHERE gid = %s AND branch = %s AND op = %s AND seq = '01'"

LOCK_WAIT, DEADLOCK = 1205, 1213


class Refused(Exception):
    """The business says no: 409."""


def passes(sql, mode, gid, branch, op):
    """Whether the statements of `op` are to run: "run", "done" (they ran, or there is nothing to
    undo), or "undone" (it comes after its undo)."""
    places = UNDONE.get(op, [])
    taken = sum(sql.execute(INSERT, (mode, gid, branch, undone, op)) for undone in places)
    own = sql.execute(INSERT, (mode, gid, branch, op, op))
    if own:
        return "done" if places and taken == len(places) else "run"
    sql.execute(REASON, (gid, branch, op))
    row = sql.fetchone()
    return "done" if row is None or row[0] == op else "undone"


class Participant(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 16 * 1024
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path != "/books":
            return self.answer(404, "no such page")
        session = self.server.connect()
        try:
            with session.cursor() as sql:
                return self.answer(200, json.dumps(self.server.books(sql)))
        finally:
            session.close()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in ("/hold", "/release"):
            (self.server.held.set if self.path == "/hold" else self.server.held.clear)()
            return self.answer(200)
        does = self.server.operations.get(self.path)
        branch = [self.headers.get("mainstay-" + name) for name in ("mode", "gid", "branch", "op")]
        if does is None or None in branch:
            return self.answer(422, "not a call of a coordinator, or no such operation")
        if self.server.held.is_set():
            return self.answer(425, "still at it: ask again")
        return self.answer(*self.server.does_once(branch, does, json.loads(body)))

    def answer(self, status, text=""):
        """Of a 409 the text shows as the reason of the transaction."""
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name, arguments, operations, books):
        port, database_port = (int(argument) for argument in arguments)
        super().__init__(("127.0.0.1", port), Participant)
        self.name, self.database_port = name, database_port
        self.operations, self.books = operations, books
        self.held = threading.Event()

    def connect(self):
        session = pymysql.connect(host="127.0.0.1", port=self.database_port, user="shopkeeper", database=self.name)
        with session.cursor() as sql:
            sql.execute("SET SESSION innodb_lock_wait_timeout = 2")
        return session

    def does_once(self, branch, does, asked):
        """One local transaction: barrier, business, commit. Returns status and text."""
        session = self.connect()
        try:
            session.begin()
            with session.cursor() as sql:
                passage = passes(sql, *branch)
                if passage == "run":
                    does(sql, asked)
            session.commit()
            if passage == "undone":
                return 409, "the branch was undone before this came"
            return 200, ""
        except Refused as no:
            session.rollback()
            return 409, str(no)
        except pymysql.err.OperationalError as error:
            session.rollback()
            if error.args[0] in (LOCK_WAIT, DEADLOCK):
                return 425, "another session is at the same rows: ask again"
            return 500, str(error)
        finally:
            session.close()

    def serve(self):
        print(f"{self.name}:{self.server_port} ready", flush=True)
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            pass
