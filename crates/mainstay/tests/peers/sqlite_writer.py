"""A command under `mainstay lock run` that writes into SQLite, with and without checking its token.

It writes each number that it is told on its standard input, and says what became of it. With `read`
it prints what stands in the file.
"""

import json
import os
import sqlite3
import sys

RESOURCE = "shop/stock"

database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
database.executescript(
    """
    CREATE TABLE IF NOT EXISTS mainstay_fence (resource TEXT PRIMARY KEY, token BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS register (name TEXT PRIMARY KEY, token BIGINT, n BIGINT);
    INSERT OR IGNORE INTO register VALUES ('fenced', 0, 0), ('unfenced', 0, 0);
    """
)
if sys.argv[2:] == ["read"]:
    print(json.dumps(database.execute("SELECT token, n FROM register ORDER BY name").fetchall()))
    sys.exit()

token = int(os.environ["MAINSTAY_LOCK_TOKEN"])
CHECK = """
    INSERT INTO mainstay_fence VALUES (?, ?) ON CONFLICT (resource)
    DO UPDATE SET token = excluded.token WHERE mainstay_fence.token <= excluded.token
"""
WRITE = "UPDATE register SET token = ?, n = ? WHERE name = ?"


def write(number):
    """What became of the fenced write of `number`."""
    # The check and the write are one transaction; it takes the file for itself at once.
    database.execute("BEGIN IMMEDIATE")
    if database.execute(CHECK, (RESOURCE, token)).rowcount == 1:
        database.execute(WRITE, (token, number, "fenced"))
        database.execute("COMMIT")
        told = "passed"
    else:
        seen = database.execute("SELECT token FROM mainstay_fence WHERE resource = ?", (RESOURCE,))
        told = f"refused {seen.fetchone()[0]}"
        database.execute("ROLLBACK")
    database.execute(WRITE, (token, number, "unfenced"))
    return told


print(f"holds {token}", flush=True)
for line in sys.stdin:
    print(f"wrote {write(int(line))}", flush=True)
