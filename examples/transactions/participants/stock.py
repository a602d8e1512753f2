#!/usr/bin/env python3
"""Stock: how many of an article are available, and how many of them are reserved. MariaDB.

    usage: stock.py PORT PORT-OF-MARIADB
"""

import sys

from participant import Refused, Server


def deduct(sql, asked):
    changed = sql.execute("UPDATE article SET available = available - %(count)s "
                          "WHERE sku = %(sku)s AND available - reserved >= %(count)s", asked)
    if not changed:
        raise Refused("sold out")


def restore(sql, asked):
    sql.execute("UPDATE article SET available = available + %(count)s WHERE sku = %(sku)s", asked)


def ship(sql, asked):
    """A message says what has happened elsewhere: it cannot be refused, so stock may go below zero."""
    sql.execute("UPDATE article SET available = available - %(count)s WHERE sku = %(sku)s", asked)


def reserve(sql, asked):
    changed = sql.execute("UPDATE article SET reserved = reserved + %(count)s "
                          "WHERE sku = %(sku)s AND available - reserved >= %(count)s", asked)
    if not changed:
        raise Refused("sold out")


def confirm(sql, asked):
    sql.execute("UPDATE article SET available = available - %(count)s, reserved = reserved - %(count)s "
                "WHERE sku = %(sku)s", asked)


def cancel(sql, asked):
    sql.execute("UPDATE article SET reserved = reserved - %(count)s WHERE sku = %(sku)s", asked)


def books(sql):
    sql.execute("SELECT available, reserved FROM article WHERE sku = 'book'")
    available, reserved = sql.fetchone()
    prepared = sql.execute("XA RECOVER")
    return {"available": available, "reserved": reserved, "prepared": prepared}


OPERATIONS = {"/deduct": deduct, "/restore": restore, "/ship": ship,
              "/try": reserve, "/confirm": confirm, "/cancel": cancel}

if __name__ == "__main__":
    Server("stock", sys.argv[1:], OPERATIONS, books).serve()
