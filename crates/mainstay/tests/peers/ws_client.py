"""What a `websockets` client sees through the gateway: `ws_client.py CASE GATEWAY`.

Every case raises when something is not as it would be without a gateway in between.
"""

import asyncio
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def to(gateway, path, **options):
    options = {"max_size": None, "ping_interval": None, "proxy": None, **options}
    options["subprotocols"] = ["shop.v1"]
    return connect(f"ws://{gateway}{path}", **options)


def same(got, want):
    assert got == want, f"{got!r} instead of {want!r}"


async def messages(gateway):
    async with to(gateway, "/echo") as socket:
        same(socket.subprotocol, "shop.v1")
        names = [extension.name for extension in socket.protocol.extensions]
        same(names, ["permessage-deflate"])
        for message in ("", "héllo", b"", bytes(range(256)) * 16384):  # up to 4 MiB
            await socket.send(message)
            same(await socket.recv(), message)
        await socket.send(["in ", "several ", "frames"])
        same(await socket.recv(), "in several frames")
        await asyncio.wait_for(await socket.ping(b"there?"), 10)


async def closing(gateway):
    for code in (1000, 1001, 1008, 1011, 3000, 4321):
        async with to(gateway, f"/close/{code}") as socket:
            try:
                await socket.recv()
                raise AssertionError("not closed")
            except ConnectionClosed as closed:
                same((closed.rcvd.code, closed.rcvd.reason), (code, "as you wish"))
        async with to(gateway, "/echo") as socket:
            await socket.close(code, "bye")
        async with to(gateway, "/told") as told:
            same(await told.recv(), str(code))


async def denied(gateway):
    try:
        await to(gateway, "/denied")
        raise AssertionError("not refused")
    except InvalidStatus as refusal:
        same(refusal.response.status_code, 403)
        same(refusal.response.body, b"not you\n")


async def ended(socket):
    """Waits for the end of a tunnel that nobody closes properly."""
    try:
        await asyncio.wait_for(socket.recv(), 20)
        raise AssertionError("a message out of nowhere")
    except ConnectionClosed as closed:
        same(closed.rcvd, None)


async def idle(gateway):
    """Tunnels may be silent for 2 s by the configuration; a ping is enough to be heard."""
    async def silent():
        async with to(gateway, "/echo") as socket:
            began = time.monotonic()
            await ended(socket)
            took = time.monotonic() - began
            assert 1.5 < took < 10, f"cut after {took} s"

    async def talking():
        async with to(gateway, "/echo") as socket:
            for _ in range(12):
                await asyncio.sleep(0.5)
                await asyncio.wait_for(await socket.ping(), 10)
            await socket.send("still here")
            same(await socket.recv(), "still here")

    await asyncio.gather(silent(), talking())


async def many(gateway):
    """200 tunnels at once, each with its own messages."""
    async def one(own):
        async with to(gateway, "/echo", open_timeout=20) as socket:
            for number in range(20):
                await socket.send(f"{own}:{number}")
                same(await socket.recv(), f"{own}:{number}")
    await asyncio.gather(*(one(own) for own in range(200)))


async def cut(gateway):
    """Says when it stands; then whoever started it takes the other end away."""
    async with to(gateway, "/echo") as socket:
        await socket.send("up")
        same(await socket.recv(), "up")
        print("standing", flush=True)
        await ended(socket)


async def told(gateway):
    """Says when it stands; then whoever started it drains the gateway, which says that it goes."""
    async with to(gateway, "/echo") as socket:
        await socket.send("up")
        same(await socket.recv(), "up")
        print("standing", flush=True)
        try:
            await asyncio.wait_for(socket.recv(), 20)
            raise AssertionError("a message out of nowhere")
        except ConnectionClosed as closed:
            same(closed.rcvd.code, 1001)


asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
