#!/usr/bin/env python3
"""Payment: accounts of customers and of the shop. MariaDB.

    usage: payment.py PORT PORT-OF-MARIADB
"""

import sys

from participant import Refused, Server

RECEIVE = "UPDATE account SET cents = cents + %(cents)s WHERE name = 'shop'"


def charge(sql, asked):
    changed = sql.execute("UPDATE account SET cents = cents - %(cents)s "
                          "WHERE name = %(customer)s AND cents - reserved >= %(cents)s", asked)
    if not changed:
        raise Refused("not enough money")
    sql.execute(RECEIVE, asked)


def refund(sql, asked):
    sql.execute("UPDATE account SET cents = cents + %(cents)s WHERE name = %(customer)s", asked)
    sql.execute("UPDATE account SET cents = cents - %(cents)s WHERE name = 'shop'", asked)


def invoice(sql, asked):
    """A message says what has happened elsewhere: it cannot be refused, so an account may go below zero."""
    sql.execute("UPDATE account SET cents = cents - %(cents)s WHERE name = %(customer)s", asked)
    sql.execute(RECEIVE, asked)


def reserve(sql, asked):
    changed = sql.execute("UPDATE account SET reserved = reserved + %(cents)s "
                          "WHERE name = %(customer)s AND cents - reserved >= %(cents)s", asked)
    if not changed:
        raise Refused("not enough money")


def confirm(sql, asked):
    sql.execute("UPDATE account SET cents = cents - %(cents)s, reserved = reserved - %(cents)s "
                "WHERE name = %(customer)s", asked)
    sql.execute(RECEIVE, asked)


def cancel(sql, asked):
    sql.execute("UPDATE account SET reserved = reserved - %(cents)s WHERE name = %(customer)s", asked)


def books(sql):
    sql.execute("SELECT name, cents, reserved FROM account ORDER BY name")
    return {name: {"cents": cents, "reserved": reserved} for name, cents, reserved in sql.fetchall()}


OPERATIONS = {"/charge": charge, "/refund": refund, "/invoice": invoice,
              "/try": reserve, "/confirm": confirm, "/cancel": cancel}

if __name__ == "__main__":
    Server("payment", sys.argv[1:], OPERATIONS, books).serve()
