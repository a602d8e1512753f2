"""A WebSocket service on `websockets`; prints its port, serves until standard input ends.

`/echo` sends back what comes, `/close/CODE` closes with that code, `/told` says with which code the
last `/echo` was closed, `/denied` refuses the handshake.
"""

import asyncio
import http
import sys

from websockets.asyncio.server import serve

last = asyncio.Queue()


async def handler(socket):
    path = socket.request.path
    if path.startswith("/close/"):
        await socket.close(int(path.removeprefix("/close/")), "as you wish")
    elif path == "/told":
        await socket.send(str(await last.get()))
    else:
        try:
            async for message in socket:
                await socket.send(message)
        finally:
            await last.put(socket.close_code)


def refuse(connection, request):
    if request.path == "/denied":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")


async def main():
    # More than the hundred of asyncio: a connect that the kernel drops is sent again a second later.
    options = {"process_request": refuse, "subprotocols": ["shop.v2", "shop.v1"], "max_size": None}
    options |= {"ping_interval": None, "backlog": 1000}
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
