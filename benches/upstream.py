"""What stands behind the gateways, on the load's core: nginx with a canned answer where requests are
many, `scripted.py` where an upstream has to do something.
"""

import http.client
import json
import pathlib
import sys

import peers
import process
from process import Child, free_port
from scripted import PAGES

TEXT = "return total / len(values)"
CHAT_TEXT = "Reset the branch to where it was and keep the changes in the index: nothing of the work is lost, and each part can be committed anew."
IDENTITY = {"id": "cmpl-5f0c7d1f2a9b4e3c8d7e6f5a4b3c2d1e", "object": "text_completion", "created": 1795000000, "model": "bench",
            "system_fingerprint": "bench@1"}
USAGE = {"prompt_tokens": 700, "completion_tokens": 9, "total_tokens": 709}


def answer_json():
    """What a pod's whole answer looks like."""
    return json.dumps({
        **IDENTITY,
        "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}],
        "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 0, "truncated_tokens": 0}},
    }, separators=(",", ":"))


def answer_stream():
    """The same as our pods stream it: one piece, the usage, the terminator."""
    piece = {**IDENTITY, "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop",
                                      "token_ids": [11, 245, 1021, 9, 87, 33, 5, 77, 2]}]}
    events = [json.dumps(event, separators=(",", ":")) for event in (piece, {**IDENTITY, "choices": [], "usage": USAGE})]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])


def chat_stream():
    """The same for a chat: a sentence or two."""
    of = {**IDENTITY, "object": "chat.completion.chunk"}
    choice = {"index": 0, "delta": {"role": "assistant", "content": CHAT_TEXT}, "logprobs": None, "finish_reason": "stop"}
    events = [json.dumps(event, separators=(",", ":")) for event in ({**of, "choices": [choice]}, {**of, "choices": [], "usage": USAGE})]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])


def text_of(body):
    """An answer's text, whole or streamed."""
    if not body.startswith(b"data:"):
        return json.loads(body)["choices"][0]["text"]
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"] if choice.get("text"))


def ask(port, path, body, headers, method="POST", timeout=10):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


class Canned:
    """nginx with one answer, streamed at one port and whole at another; to chats streamed at both."""

    def __init__(self, folder):
        def quoted(text):
            return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

        pages = "".join(f"location = {path} {{ default_type application/json; return 200 {quoted(json.dumps(page))}; }}\n"
                        for path, page in PAGES.items())
        kinds = {"stream": ("text/event-stream", answer_stream()), "whole": ("application/json", answer_json())}
        self.ports = {kind: free_port() for kind in kinds}
        servers = "".join(
            f"server {{ listen 127.0.0.1:{self.ports[kind]} backlog=4096; {pages} "
            f"location = /v1/completions {{ default_type {media}; return 200 {quoted(answer)}; }} "
            f"location = /v1/chat/completions {{ default_type text/event-stream; return 200 {quoted(chat_stream())}; }} }}\n"
            for kind, (media, answer) in kinds.items())
        self.child = peers.nginx_child(folder, "canned", process.LOAD_CORE, servers)

    def __enter__(self):
        self.child.wait_until(lambda: ask(self.ports["stream"], "/readyz", None, {}, "GET")[0] == 200)
        return self

    def __exit__(self, *_):
        self.child.stop()


class Scripted:
    def __init__(self, folder):
        self.port = free_port()
        program = pathlib.Path(__file__).with_name("scripted.py")
        self.child = Child("the scripted upstream", [sys.executable, program, self.port], process.LOAD_CORE, folder / "scripted.log")

    def __enter__(self):
        self.child.wait_until(lambda: ask(self.port, "/readyz", None, {}, "GET")[0] == 200)
        return self

    def __exit__(self, *_):
        self.child.stop()

    def seen(self, name):
        """When a request came, and when it was done or its connection closed."""
        return json.loads(ask(self.port, f"/bench/{name}", None, {}, "GET")[2])
