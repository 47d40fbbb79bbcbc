"""An upstream that does what the prompt says, and remembers how its requests ended.

    python3 benches/scripted.py PORT

The last line of the prompt, or of the last message, is `bench ID ACT`:

    answer              at once
    slow SECONDS        says nothing for so long, then answers
    paced EVENTS MS     so many events, so far apart
    held                one event, then nothing until the other side closes
    refuse              400

As a stream or whole, as the request says. `GET /bench/ID` tells of a request when it came, and when it
was done or its connection was closed, by CLOCK_MONOTONIC, which is the same for all processes.
"""

import asyncio
import gc
import json
import sys
import time

MODELS = ("bench", "bench-chat")
REPORT = {"models": [{"name": name, "revision": "1", "template": "t", "temperature": 0.0, "max_tokens": 64,
                      "context_length": 4096} for name in MODELS], "slots": 16384}
# What the engines say of themselves at the paths at which routers ask them.
SELF = {"model_path": "bench", "tokenizer_path": "bench", "served_model_name": "bench", "is_generation": True, "dp_size": 1,
        "model_id": "bench"}
LIST = {"object": "list", "data": [{"id": name, "object": "model", "created": 1795000000, "owned_by": "bench"} for name in MODELS]}
PAGES = {"/readyz": REPORT, "/health": {}, "/health_generate": {}, "/v1/models": LIST, "/get_model_info": SELF, "/model_info": SELF,
         "/get_server_info": SELF, "/server_info": SELF}
seen = {}


def error(status, message, code):
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def word(at):
    return f"t{at} "


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer, self.act, self.timer = transport, b"", None, None

    def connection_lost(self, _):
        if self.timer:
            self.timer.cancel()
        if self.act and "done" not in self.act:
            self.act["gone"] = time.monotonic()

    def data_received(self, data):
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            lines = head.decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(":", 1) for line in lines[1:])
            if headers.get("transfer-encoding", "").strip() == "chunked":
                body, rest = dechunked(rest)
                if body is None:
                    return
            else:
                length = int(headers.get("content-length", 0))
                if len(rest) < length:
                    return
                body, rest = rest[:length], rest[length:]
            self.buffer = rest
            method, path = lines[0].split(" ")[:2]
            self.answer(method, path.partition("?")[0], body)

    def answer(self, method, path, body):
        if method != "POST":
            if path.startswith("/bench/"):
                self.page(200, seen.get(path.removeprefix("/bench/"), {}))
            elif path in PAGES:
                self.page(200, PAGES[path])
            else:
                self.page(*error(404, "the scripted upstream has no such page", "not_found"))
            return
        try:
            asked = json.loads(body)
            text = asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]
            text = text if isinstance(text, str) else text[0] if isinstance(text[0], str) else text[0]["text"]
            _, name, act, *words = text.rsplit("\n", 1)[-1].split()
            numbers = [float(number) for number in words]
        except (ValueError, KeyError, TypeError, IndexError):
            self.page(*error(400, "the scripted upstream cannot read this", "invalid_json"))
            return
        self.act = seen[name] = {"came": time.monotonic()}
        if act == "refuse":
            self.act["done"] = time.monotonic()
            self.page(*error(400, "the scripted upstream refuses", "context_length_exceeded"))
            return
        self.chat, self.stream = "messages" in asked, bool(asked.get("stream"))
        self.with_usage = (asked.get("stream_options") or {}).get("include_usage")
        self.model = asked.get("model", "bench")
        loop = asyncio.get_running_loop()
        silent_s, events, pace_s = 0.0, 1, 0.0
        if act == "slow":
            (silent_s,) = numbers
        elif act == "paced":
            events, pace_s = int(numbers[0]), numbers[1] / 1000
        elif act == "held":
            events, pace_s = 2, 3600.0
        if self.stream:
            if silent_s:
                self.timer = loop.call_later(silent_s, self.begin, events, pace_s)
            else:
                self.begin(events, pace_s)
        else:
            self.timer = loop.call_later(silent_s + (events - 1) * pace_s, self.whole, events)

    def begin(self, events, pace_s):
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n")
        self.due = asyncio.get_running_loop().time()
        self.next(0, events, pace_s)

    def next(self, at, events, pace_s):
        last = at == events - 1
        choice = {"index": 0, "finish_reason": "stop" if last else None, "logprobs": None}
        if self.chat:
            choice["delta"] = {"content": word(at), **({} if at else {"role": "assistant"})}
        else:
            choice["text"] = word(at)
        self.event({"choices": [choice]})
        if not last:
            # From when it was due, not from when it was sent: a late event does not delay the rest.
            self.due += pace_s
            self.timer = asyncio.get_running_loop().call_at(self.due, self.next, at + 1, events, pace_s)
            return
        if self.with_usage:
            self.event({"choices": [], "usage": usage(events)})
        self.act["done"] = time.monotonic()
        self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def event(self, content):
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        event = {"id": "cmpl-bench", "object": kind, "created": 1795000000, "model": self.model, "system_fingerprint": f"{self.model}@1", **content}
        data = b"data: %s\n\n" % json.dumps(event, separators=(",", ":")).encode()
        self.transport.write(b"%x\r\n%s\r\n" % (len(data), data))

    def whole(self, events):
        text = "".join(word(at) for at in range(events))
        choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
        choice.update({"message": {"role": "assistant", "content": text}} if self.chat else {"text": text})
        self.act["done"] = time.monotonic()
        self.page(200, {"id": "cmpl-bench", "object": "chat.completion" if self.chat else "text_completion", "created": 1795000000,
                        "model": self.model, "system_fingerprint": f"{self.model}@1", "choices": [choice], "usage": usage(events)})

    def page(self, status, content):
        data = json.dumps(content).encode()
        self.transport.write(b"HTTP/1.1 %d Bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(data), data))


def usage(events):
    return {"prompt_tokens": 20, "completion_tokens": events, "total_tokens": 20 + events}


def dechunked(data):
    body = b""
    while True:
        size, found, data = data.partition(b"\r\n")
        if not found:
            return None, b""
        length = int(size.partition(b";")[0], 16)
        if len(data) < length + 2:
            return None, b""
        body, data = body + data[:length], data[length + 2:]
        if length == 0:
            return body, data


async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
