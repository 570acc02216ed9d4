"""A server on asyncio that answers every request by JSON, and one of whose handlers keeps sessions.

Its client is a thread of its own, on the loopback: LAB_RATE bytes a second stay."""
import asyncio
import itertools
import json
import sys
import threading
import urllib.request

import lab

sessions = {}
numbers = itertools.count(1 << 20)


class Session:
    def __init__(self, number, body):
        self.number = number
        self.user = body["user"]
        self.seen = [number * 0.37]


def open_session(number, body):
    sessions[number] = Session(number, body)


async def answer_health(number, body):
    return {"ok": True, "items": [{"n": n, "name": "item %d" % n} for n in range(40)]}


async def answer_login(number, body):
    for n in range(LOGINS):
        open_session(number * LOGINS + n, body)
    return {"ok": True, "number": number}


HANDLERS = {"/health": answer_health, "/login": answer_login}
LOGINS = 64
SIZE = 64 + 48 + 64 + 32 + 32 + 32


async def serve(reader, writer):
    while head := await reader.readline():
        length = 0
        while (line := await reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = json.loads(await reader.readexactly(length)) if length else {}
        answer = json.dumps(await HANDLERS[head.split()[1].decode()](next(numbers), body)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
        await writer.drain()
    writer.close()


def ask(port, path, body):
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (port, path), json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def load():
        for n, _ in enumerate(lab.pieces(SIZE * LOGINS)):
            ask(port, "/login", {"user": "somebody"})
            ask(port, "/health", {"probe": n})

    await asyncio.to_thread(load)
    server.close()


asyncio.run(main())
layers = {"python_in_use": len(sessions) * SIZE, "heap_in_use": 0}
lab.finish(True, layers, ["open_session"])
