"""Requests at a fixed rate, whatever becomes of them, and how long each took from when it was due.

    python3 benches/open_loop.py PORT REQUEST_FILE RATE SECONDS      one JSON line

The file has a request, or several with a zero byte between them, which are sent in turn.

A request that is sent late, because the server or this program is behind, has waited, and that
counts: a load that waits for answers would send less to a slow server and see less of its slowness.
One thread; its own part is in every figure, and taken out by asking the upstream directly as well.
"""

import ctypes
import gc
import json
import select
import socket
import sys
import time

CONNECTIONS = 256
PR_SET_TIMERSLACK = 29
GRACE_S = 5


def connected(port):
    made = socket.create_connection(("127.0.0.1", port), timeout=5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return made


def is_alive(connection):
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def is_whole(answer):
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    at = head.lower().find(b"content-length:")
    if at < 0:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head[at + 15:].split(b"\r\n", 1)[0])


def main():
    port, rate, seconds = int(sys.argv[1]), float(sys.argv[3]), float(sys.argv[4])
    requests = open(sys.argv[2], "rb").read().split(b"\0")
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    idle = [connected(port) for _ in range(8)]
    busy, opened = {}, len(idle)
    count, sent, bad = max(1, int(rate * seconds)), 0, 0
    took, first, late = [], [], []
    gc.disable()
    start = time.perf_counter() + 0.01
    end = start + seconds + GRACE_S
    while len(took) + bad < count and (now := time.perf_counter()) < end:
        while sent < count and start + sent / rate <= now and (idle or opened < CONNECTIONS):
            connection = idle.pop() if idle else None
            if connection is None or not is_alive(connection):
                opened += connection is None
                connection = connected(port)
            due = start + sent / rate
            late.append(time.perf_counter() - due)
            connection.send(requests[sent % len(requests)])
            busy[connection] = (due, b"")
            sent += 1
            now = time.perf_counter()
        wait = min(end - now, start + sent / rate - now) if sent < count else end - now
        ready, _, _ = select.select(busy, (), (), max(0.0, wait) if idle or opened < CONNECTIONS else 0.05)
        for connection in ready:
            try:
                data = connection.recv(65536)
            except OSError:
                data = b""
            due, answer = busy[connection]
            if data and not answer:
                first.append(time.perf_counter() - due)
            answer += data
            if not data:
                bad += 1
                opened -= 1
                del busy[connection]
            elif is_whole(answer):
                if answer[9:12] == b"200":
                    took.append(time.perf_counter() - due)
                else:
                    bad += 1
                del busy[connection]
                idle.append(connection)
            else:
                busy[connection] = (due, answer)
    took.sort()
    first.sort()
    late.sort()

    def at(ordered, share):
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e6 if ordered else None

    print(json.dumps({"due": count, "answered": len(took), "bad": count - len(took), "p50_us": at(took, 0.5), "p99_us": at(took, 0.99),
                      "first_p50_us": at(first, 0.5), "first_p99_us": at(first, 0.99),
                      "late_p99_us": at(late, 0.99)}))


if __name__ == "__main__":
    main()
