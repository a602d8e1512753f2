#!/usr/bin/env python3
"""Stock: how many of an article are left. Python's standard library only.

    GET  /stock/{sku}    {"sku", "left", "served_by"}
    GET  /healthz        200
    POST /fault?kind=errors|latency|hang|reset|none&percent=100&seconds=20&delay=1.0
                         misbehaves on demand; ends by itself
"""

import argparse
import json
import random
import socket
import struct
import sys
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Fault:
    """What goes wrong at the moment, and until when."""

    def __init__(self):
        self.kind, self.percent, self.until, self.delay = "none", 0.0, 0.0, 1.0

    def set(self, query):
        first = lambda name, default: query.get(name, [default])[0]
        self.kind = first("kind", "none")
        self.percent = float(first("percent", "100"))
        self.delay = float(first("delay", "1"))
        self.until = time.monotonic() + min(600.0, float(first("seconds", "20")))

    def strikes(self):
        """The fault that hits this request, if any."""
        if time.monotonic() < self.until and random.random() * 100 < self.percent:
            return self.kind
        return "none"


FAULT = Fault()


class Stock(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one segment: in two, Nagle's algorithm and delayed acknowledgements cost 40 ms.
    wbufsize = 16 * 1024
    disable_nagle_algorithm = True

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/healthz":
            return self.answer(200, {"ok": True})
        fault = FAULT.strikes()
        if fault == "latency":
            time.sleep(FAULT.delay)
        elif fault == "hang":
            time.sleep(max(0.0, FAULT.until - time.monotonic()))
        elif fault == "errors":
            return self.answer(503, {"error": "stock is out of order", "served_by": self.server.name})
        elif fault == "reset":
            # A close with linger 0 sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return None
        if path.startswith("/stock/"):
            sku = path.removeprefix("/stock/")
            left = zlib.crc32(sku.encode()) % 100
            return self.answer(200, {"sku": sku, "left": left, "served_by": self.server.name})
        return self.answer(404, {"error": "no such page"})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        if url.path != "/fault":
            return self.answer(404, {"error": "no such page"})
        try:
            FAULT.set(parse_qs(url.query))
        except ValueError as error:
            return self.answer(400, {"error": str(error)})
        return self.answer(200, {"fault": FAULT.kind, "percent": FAULT.percent})

    def answer(self, status, document):
        body = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        # A caller that went away is no news; anything else is.
        if not isinstance(sys.exc_info()[1], (BrokenPipeError, ConnectionResetError, OSError)):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, required=True)
    options = arguments.parse_args()
    server = Server(("127.0.0.1", options.port), Stock)
    server.name = f"stock:{server.server_port}"
    print(f"{server.name} ready", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
