"""What a grpcio client sees through the gateway: `grpc_client.py CASE GATEWAY [SERVER…]`.

Every case raises when something is not as it would be without a gateway in between.
"""

import sys
import threading
import time

import grpc

PATIENCE = 20


def channel(to):
    return grpc.insecure_channel(to, options=[("grpc.enable_retries", 0)])


def method(to, name, kind="unary_unary"):
    return getattr(to, kind)(f"/shop.Orders/{name}")


def same(got, want):
    assert got == want, f"{got!r} instead of {want!r}"


def fails(code, call):
    try:
        got = call()
    except grpc.RpcError as error:
        same(error.code(), code)
        return error
    raise AssertionError(f"{got!r} instead of {code}")


def unary(gateway):
    with channel(gateway) as to:
        echo = method(to, "echo")
        for message in (b"", b"hello", bytes(range(256)) * 8192):  # up to 2 MiB
            sent = (("x-sum-bin", b"\x00\xff\x10"),)
            got, call = echo.with_call(message, metadata=sent, timeout=PATIENCE)
            same(got, message)
            same(dict(call.initial_metadata())["x-served"], "echo")
            trailers = dict(call.trailing_metadata())
            same(trailers["x-length"], str(len(message)))
            same(trailers["x-sum-bin"], b"\x00\xff\x10")
            same(call.code(), grpc.StatusCode.OK)


def streams(gateway):
    with channel(gateway) as to:
        counted = method(to, "count", "unary_stream")(b"1000", timeout=PATIENCE)
        same([int(m) for m in counted], list(range(1000)))
        same(dict(counted.trailing_metadata())["x-end"], "count")
        same(list(method(to, "count", "unary_stream")(b"0", timeout=PATIENCE)), [])
        joined = method(to, "join", "stream_unary")
        same(joined((b"%d" % n for n in range(500)), timeout=PATIENCE),
             b",".join(b"%d" % n for n in range(500)))
        # Each answer is waited for before the next question: nothing may be held back on the way.
        answers = threading.Semaphore(0)

        def questions():
            for number in range(100):
                yield b"%d" % number
                assert answers.acquire(timeout=PATIENCE), "an answer was held back"

        talk = method(to, "talk", "stream_stream")(questions(), timeout=PATIENCE)
        got = []
        for answer in talk:
            got.append(answer)
            answers.release()
        same(got, [b"re:%d" % n for n in range(100)])
        same(dict(talk.trailing_metadata())["x-end"], "talk")


def statuses(gateway):
    with channel(gateway) as to:
        for code in grpc.StatusCode:
            if code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE):
                continue
            words = f"{code.name} nichts für dich, 100%"
            error = fails(code, lambda: method(to, "refuse")(words.encode(), timeout=PATIENCE))
            same(error.details(), words.partition(" ")[2])
            same(dict(error.trailing_metadata())["x-why"], "asked")
        fails(grpc.StatusCode.UNIMPLEMENTED, lambda: method(to, "nothing")(b"", timeout=PATIENCE))
        # A route that is not there is refused by the gateway, in gRPC's words.
        other = to.unary_unary("/nobody.Knows/It")
        fails(grpc.StatusCode.UNIMPLEMENTED, lambda: other(b"", timeout=PATIENCE))


def deadlines(gateway):
    with channel(gateway) as to:
        left = int(method(to, "left")(b"", timeout=3))
        assert 1000 < left < 3000, f"{left} ms were left of 3000"
        began = time.monotonic()
        fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: method(to, "slow")(b"5000", timeout=0.3))
        assert time.monotonic() - began < 3
        # The gateway's own patience (4 s by its configuration) where the caller names none.
        began = time.monotonic()
        fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: method(to, "slow")(b"15000"))
        assert time.monotonic() - began < 10
        # A caller that goes away takes its call with it; the connection stays good.
        call = method(to, "slow").future(b"10000", timeout=PATIENCE)
        call.cancel()
        same(method(to, "echo")(b"after", timeout=PATIENCE), b"after")


def retries(gateway):
    with channel(gateway) as to:
        flaky, times = method(to, "flaky"), method(to, "times")
        number, before = flaky(b"plain 1 -", timeout=PATIENCE).split()
        same((number, before), (b"2", b"1"))
        began = time.monotonic()
        same(flaky(b"pushed 1 700", timeout=PATIENCE).split()[0], b"2")
        took = time.monotonic() - began
        assert took >= 0.7, f"retried after {took} s, not after the 0.7 s it was asked to wait"
        for key, pushback in (("never", "-1"), ("odd", "soon")):
            ask = f"{key} 1 {pushback}".encode()
            fails(grpc.StatusCode.UNAVAILABLE, lambda: flaky(ask, timeout=PATIENCE))
            same(times(key.encode(), timeout=PATIENCE), b"1")
        # As often as the policy says and no more.
        error = fails(grpc.StatusCode.UNAVAILABLE, lambda: flaky(b"down 9 -", timeout=PATIENCE))
        same(error.details(), "not yet")
        same(times(b"down", timeout=PATIENCE), b"3")
        # Whoever calls is retrying already: this hop does not multiply.
        above = (("grpc-previous-rpc-attempts", "1"),)
        fails(grpc.StatusCode.UNAVAILABLE,
              lambda: flaky(b"above 1 -", metadata=above, timeout=PATIENCE))
        same(times(b"above", timeout=PATIENCE), b"1")


def hundred(gateway):
    """100 streams on one connection, all open at once: none ends before all have answered."""
    with channel(gateway) as to:
        together = threading.Barrier(100, timeout=PATIENCE)
        wrong = []

        def one(own):
            try:
                go_on = threading.Event()

                def questions():
                    yield b"%d" % own
                    assert go_on.wait(PATIENCE)
                    yield b"end %d" % own

                talk = method(to, "talk", "stream_stream")(questions(), timeout=2 * PATIENCE)
                same(next(talk), b"re:%d" % own)
                together.wait()
                go_on.set()
                same(list(talk), [b"re:end %d" % own])
                same(talk.code(), grpc.StatusCode.OK)
            except BaseException as error:
                wrong.append(repr(error))

        threads = [threading.Thread(target=one, args=(n,)) for n in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, wrong[:3]


def upstream_goaway(gateway, first, second):
    """A server says GOAWAY with streams in flight: they end well, and later calls go elsewhere."""
    with channel(gateway) as to, channel(first) as direct:
        slow, echo = method(to, "slow"), method(to, "echo")
        flying = [slow.future(b"1000", timeout=PATIENCE) for _ in range(40)]
        same(echo(b"up", timeout=PATIENCE), b"up")
        same(method(direct, "stop")(b"", timeout=PATIENCE), b"stopping")
        for number in range(200):
            same(echo(b"%d" % number, timeout=PATIENCE), b"%d" % number)
        for call in flying:
            same(call.result(), b"done")


def gateway_goaway(gateway):
    """The gateway ends connections of a certain age (50 requests): clients never notice."""
    with channel(gateway) as to:
        echo = method(to, "echo")
        for _ in range(20):
            calls = [echo.future(b"%d" % n, timeout=PATIENCE) for n in range(20)]
            for number, call in enumerate(calls):
                same(call.result(), b"%d" % number)


def drained(gateway):
    """Started before the gateway is told to end (see the test): what is in flight is finished."""
    with channel(gateway) as to:
        flying = [method(to, "slow").future(b"1500", timeout=PATIENCE) for _ in range(50)]
        same(method(to, "echo")(b"up", timeout=PATIENCE), b"up")
        print("in flight", flush=True)
        for call in flying:
            same(call.result(), b"done")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
