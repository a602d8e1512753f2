"""A gRPC service on grpcio, without generated code: messages are plain bytes.

Prints its port and serves until standard input ends.
"""

import collections
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "shop.Orders"
asked = collections.Counter()
lock = threading.Lock()


def metadata(context):
    return dict(context.invocation_metadata())


def echo(request, context):
    """Answers with the request; initial and trailing metadata come back, binary ones too."""
    seen = metadata(context)
    context.send_initial_metadata((("x-served", "echo"),))
    trailers = [("x-length", str(len(request)))]
    if "x-sum-bin" in seen:
        trailers.append(("x-sum-bin", seen["x-sum-bin"]))
    context.set_trailing_metadata(tuple(trailers))
    return request


def count(request, context):
    """Server stream: as many messages as the request says."""
    for number in range(int(request)):
        yield b"%d" % number
    context.set_trailing_metadata((("x-end", "count"),))


def join(requests, context):
    """Client stream: everything that came, in its order."""
    return b",".join(requests)


def talk(requests, context):
    """Bidirectional: each message is answered before the next one is sent."""
    for request in requests:
        yield b"re:" + request
    context.set_trailing_metadata((("x-end", "talk"),))


def slow(request, context):
    """Takes as many milliseconds as the request says."""
    end = time.monotonic() + int(request) / 1000
    while time.monotonic() < end and context.is_active():
        time.sleep(0.005)
    return b"done"


def left(request, context):
    """How many milliseconds the caller still waits, as this service was told."""
    return b"%d" % (1000 * context.time_remaining())


def refuse(request, context):
    """Ends with the code and the words of the request."""
    code, _, words = request.decode().partition(" ")
    context.set_trailing_metadata((("x-why", "asked"),))
    context.abort(getattr(grpc.StatusCode, code), words)


def flaky(request, context):
    """`KEY TIMES PUSHBACK`: unavailable the first TIMES; then says what number the attempt had."""
    key, times, pushback = request.decode().split()
    with lock:
        asked[key] += 1
        number = asked[key]
    if number <= int(times):
        if pushback != "-":
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    return b"%d %s" % (number, metadata(context).get("grpc-previous-rpc-attempts", "0").encode())


def times(request, context):
    """How often `flaky` was asked for a key."""
    with lock:
        return b"%d" % asked[request.decode()]


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=160))
    stopped = threading.Event()

    def stop(request, context):
        """Says GOAWAY and finishes what is under way."""
        def later():
            server.stop(10).wait()
            stopped.set()
        threading.Thread(target=later).start()
        return b"stopping"

    unary = [echo, slow, left, refuse, flaky, times, stop]
    handlers = {f.__name__: grpc.unary_unary_rpc_method_handler(f) for f in unary}
    handlers["count"] = grpc.unary_stream_rpc_method_handler(count)
    handlers["join"] = grpc.stream_unary_rpc_method_handler(join)
    handlers["talk"] = grpc.stream_stream_rpc_method_handler(talk)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    stopped.wait()
    server.stop(0)


main()
