"""Many event streams at once, and how each of them went.

    python3 benches/streams.py PORT REQUEST_FILE STREAMS STARTING_S EVENTS LIMIT_S      one JSON line
    python3 benches/streams.py PORT REQUEST_FILE STREAMS STARTING_S held DEADLINE_S     the same, once all have begun; they stay open until its input ends

REQUEST_FILE holds a whole HTTP request in which {ID} stands for a name of the stream and {LENGTH} for the
body's length. A stream is whole when all its events came, in order, with the terminator; its longest
gap is the longest wait for an event, the first one from the request on.
"""

import gc
import json
import os
import re
import select
import socket
import sys
import time

WORD = re.compile(rb't(\d+) ')
END = b"data: [DONE]"


class Stream:
    def __init__(self, port, request):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(request)
        self.socket.setblocking(False)
        self.last, self.first_s, self.longest_s = time.monotonic(), None, 0.0
        self.words, self.tail, self.ended, self.status = 0, b"", False, None

    def read(self):
        """False when nothing more will come."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        data = self.tail + data
        if self.status is None and b"\r\n" in data:
            self.status = int(data.split(b" ", 2)[1])
        cut = data.rfind(b"\n") + 1
        lines, self.tail = data[:cut], data[cut:]
        now = time.monotonic()
        for found in WORD.finditer(lines):
            wait_s = now - self.last
            if self.first_s is None:
                self.first_s = wait_s
            self.longest_s, self.last = max(self.longest_s, wait_s), now
            # A frame that is lost, doubled or out of turn ends the count.
            if int(found.group(1)) == self.words:
                self.words += 1
        if END in lines:
            self.ended = True
        return not self.ended


def request_of(template, name):
    head, _, body = template.replace(b"{ID}", name.encode()).partition(b"\n\n")
    return head.replace(b"{LENGTH}", str(len(body)).encode()).replace(b"\n", b"\r\n") + b"\r\n\r\n" + body


def run(port, template, count, starting_s, limit_s, begun_is_enough):
    poll = select.epoll()
    streams, refused = {}, 0
    began = time.monotonic()
    opened = going = 0
    while (opened < count or going) and time.monotonic() < began + starting_s + limit_s:
        now = time.monotonic()
        while opened < count and now >= began + opened * starting_s / count:
            try:
                stream = Stream(port, request_of(template, f"s{os.getpid()}x{opened}"))
                streams[stream.socket.fileno()] = stream
                poll.register(stream.socket, select.EPOLLIN)
                going += 1
            except OSError:
                refused += 1
            opened += 1
            now = time.monotonic()
        for number, _ in poll.poll(0.005 if opened < count else 0.1):
            stream = streams[number]
            if not stream.read() or (begun_is_enough and stream.first_s is not None):
                poll.unregister(number)
                going -= 1
    return list(streams.values()), refused


def main():
    port, template, count, starting_s, events, limit_s = sys.argv[1:]
    with open(template, "rb") as file:
        template = file.read()
    gc.disable()
    held = events == "held"
    streams, refused = run(int(port), template, int(count), float(starting_s), float(limit_s), held)
    events = 1 if held else int(events)
    whole = [stream for stream in streams if stream.status == 200 and stream.words == events and (held or stream.ended)]
    gaps = sorted(stream.longest_s for stream in whole)
    print(json.dumps({"streams": int(count), "refused": refused, "whole": len(whole), "statuses": sorted({str(s.status) for s in streams}),
                      "longest_gaps_s": gaps}), flush=True)
    if held:
        sys.stdin.read()


if __name__ == "__main__":
    main()
