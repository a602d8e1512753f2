"""dtmcli, unmodified, as manager and as participants on MariaDB, against the door on the port given.

Two accounts move money from one to the other by saga, TCC and message, each branch behind the
barrier of the client. Whatever is called twice or out of turn, no money appears or disappears.
"""

import os
import pwd
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pymysql
import requests
from dtmcli import barrier, msg, saga, tcc, utils

DTM = f"http://127.0.0.1:{sys.argv[1]}/api/dtmsvr"

SCHEMA = """
CREATE DATABASE dtm_barrier;
CREATE TABLE dtm_barrier.barrier (
  id bigint AUTO_INCREMENT PRIMARY KEY, trans_type varchar(45) DEFAULT '', gid varchar(128) DEFAULT '',
  branch_id varchar(128) DEFAULT '', op varchar(45) DEFAULT '', barrier_id varchar(45) DEFAULT '',
  reason varchar(45) DEFAULT '', UNIQUE KEY uniq_barrier (gid, branch_id, op, barrier_id)) ENGINE=InnoDB;
CREATE DATABASE bank;
CREATE TABLE bank.account (name varchar(10) PRIMARY KEY, balance int NOT NULL, held int NOT NULL DEFAULT 0) ENGINE=InnoDB;
INSERT INTO bank.account (name, balance) VALUES ('a', 100), ('b', 100);
"""


class MariaDb:
    """A server of its own, in a folder that goes with it."""

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="dtm-")
        self.socket = os.path.join(self.home, "socket")
        data = os.path.join(self.home, "data")
        user = pwd.getpwuid(os.geteuid()).pw_name
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={user}",
                   "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        program = shutil.which("mariadbd", path=os.environ["PATH"] + ":/usr/sbin")
        self.child = subprocess.Popen(
            [program, "--no-defaults", f"--datadir={data}", f"--socket={self.socket}", f"--user={user}",
             "--skip-networking", "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=2"],
            stderr=open(os.path.join(self.home, "log"), "w"))
        until("MariaDB answers", self.answers)

    def answers(self):
        try:
            self.connect().close()
            return True
        except pymysql.err.OperationalError:
            return False

    def connect(self):
        return pymysql.connect(unix_socket=self.socket, user="root", autocommit=False)

    def run(self, script):
        connection = self.connect()
        with connection.cursor() as cursor:
            for statement in filter(str.strip, script.split(";")):
                cursor.execute(statement)
        connection.commit()
        connection.close()

    def balances(self):
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, balance, held FROM bank.account ORDER BY name")
            found = cursor.fetchall()
        connection.close()
        return [tuple(row) for row in found]

    def stop(self):
        self.child.terminate()
        self.child.wait()
        shutil.rmtree(self.home)


def until(what, happens):
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < 60, what
        time.sleep(0.05)


# What each path does, with the sign of the money, to which account.
MOVES = {
    "/out": "UPDATE bank.account SET balance = balance - %s WHERE name = 'a'",
    "/undo-out": "UPDATE bank.account SET balance = balance + %s WHERE name = 'a'",
    "/in": "UPDATE bank.account SET balance = balance + %s WHERE name = 'b'",
    "/undo-in": "UPDATE bank.account SET balance = balance - %s WHERE name = 'b'",
    "/try": "UPDATE bank.account SET balance = balance - %s, held = held + %s WHERE name = 'a'",
    "/confirm": "UPDATE bank.account SET held = held - %s WHERE name = 'a'",
    "/cancel": "UPDATE bank.account SET balance = balance + %s, held = held - %s WHERE name = 'a'",
}

refused = set()
lost = set()
calls = []


class Branch(BaseHTTPRequestHandler):
    def do_POST(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        calls.append((url.path, query.get("gid")))
        status = 200
        try:
            if url.path in refused:
                raise utils.DTMFailureError("no")
            self.act(url.path, query, json.loads(body) if body else {})
            if url.path in lost:
                lost.remove(url.path)
                status = 500  # The work is done, and the answer is not that.
        except utils.DTMFailureError:
            status = 409
        except Exception:
            traceback.print_exc()
            status = 500
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST

    def act(self, path, query, body):
        ours = barrier.BranchBarrier(query["trans_type"], query["gid"], query["branch_id"], query["op"])
        with barrier.AutoCursor(bank.connect().cursor()) as cursor:
            if path == "/asked":
                return ours.query_prepared(cursor)

            def business(cursor):
                statement = MOVES[path]
                cursor.execute(statement, (body["amount"],) * statement.count("%s"))

            ours.call(cursor, business)

    def log_message(self, *_):
        pass


def status(gid):
    return requests.get(f"{DTM}/query", params={"gid": gid}).json()["transaction"]["status"]


def ends(gid, want):
    until(f"{gid} is {want}", lambda: status(gid) == want)


def transfer(gid, amount=30):
    move = saga.Saga(DTM, gid)
    move.add({"amount": amount}, f"{shop}/out", f"{shop}/undo-out")
    return move.add({"amount": amount}, f"{shop}/in", f"{shop}/undo-in")


def sagas():
    gid = utils.gen_gid(DTM)
    lost.add("/out")  # Called again, and not done again.
    transfer(gid).submit()
    ends(gid, "succeed")
    assert calls.count(("/out", gid)) == 2
    assert bank.balances() == [("a", 70, 0), ("b", 130, 0)], bank.balances()
    gid = utils.gen_gid(DTM)
    refused.add("/in")
    transfer(gid).submit()
    ends(gid, "failed")
    assert calls.count(("/undo-in", gid)) == 1, "an empty rollback, which the barrier sees to"
    assert bank.balances() == [("a", 70, 0), ("b", 130, 0)], bank.balances()
    refused.clear()


def tccs():
    def reserve(trip):
        trip.call_branch({"amount": 20}, f"{shop}/try", f"{shop}/confirm", f"{shop}/cancel")

    gid = utils.gen_gid(DTM)
    assert tcc.tcc_global_transaction(DTM, gid, reserve) == gid
    ends(gid, "succeed")
    assert bank.balances() == [("a", 50, 0), ("b", 130, 0)], bank.balances()

    def reserve_and_fail(trip):
        reserve(trip)
        raise utils.DTMFailureError("no seat")

    gid = utils.gen_gid(DTM)
    assert tcc.tcc_global_transaction(DTM, gid, reserve_and_fail) == ""
    ends(gid, "failed")
    assert bank.balances() == [("a", 50, 0), ("b", 130, 0)], bank.balances()


def message(gid):
    return msg.Msg(DTM, gid).add({"amount": 10}, f"{shop}/in")


def messages():
    def local(cursor):
        cursor.execute(MOVES["/out"], (10,))

    gid = utils.gen_gid(DTM)
    with barrier.AutoCursor(bank.connect().cursor()) as cursor:
        message(gid).do_and_submit_db(f"{shop}/asked", cursor, local)
    ends(gid, "succeed")
    assert bank.balances() == [("a", 40, 0), ("b", 140, 0)], bank.balances()

    def fails(cursor):
        local(cursor)
        raise utils.DTMFailureError("no")

    gid = utils.gen_gid(DTM)
    with barrier.AutoCursor(bank.connect().cursor()) as cursor:
        try:
            message(gid).do_and_submit_db(f"{shop}/asked", cursor, fails)
        except utils.DTMFailureError:
            pass
    ends(gid, "failed")
    # Its sender dies after the local part, or before it: the barrier's row tells which.
    for done, want in [(True, "succeed"), (False, "failed")]:
        gid = utils.gen_gid(DTM)
        left = message(gid)
        left.trans_base.timeout_to_fail = 1
        left.prepare(f"{shop}/asked")
        if done:
            with barrier.AutoCursor(bank.connect().cursor()) as cursor:
                barrier.BranchBarrier("msg", gid, "00", "msg").call(cursor, local)
        ends(gid, want)
    assert bank.balances() == [("a", 30, 0), ("b", 150, 0)], bank.balances()


bank = MariaDb()
try:
    bank.run(SCHEMA)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Branch)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shop = f"http://127.0.0.1:{server.server_address[1]}"
    sagas()
    tccs()
    messages()
finally:
    bank.stop()
