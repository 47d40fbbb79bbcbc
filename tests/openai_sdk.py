"""Drives a running Nearhop with the real openai package, as an editor's plug-in would.

    .venv/bin/python tests/openai_sdk.py http://127.0.0.1:8080/v1

The edge must know the key `nh-dev` and serve `nearhop-mini`, as `nearhop dev` does. Prints
`ok NAME` for each rule that holds and stops at the first that does not. Nothing is retried: what an
SDK's retries would hide is what this is here to see.
"""

import sys
import time
from collections.abc import Callable
from typing import NoReturn

import openai

KEY = "nh-dev"
MODEL = "nearhop-mini"
CONTEXT_LENGTH = 1024
SOURCE = "x-nearhop-source"


def run_name() -> str:
    """Letters that no earlier run used, so that this one's prompts are in no cache."""
    digits = time.time_ns()
    letters = ""
    while digits:
        digits, digit = divmod(digits, 26)
        letters += chr(ord("a") + digit)
    return letters


# The name stands near the cursor: a cache may find a prompt by its end alone.
RUN = run_name()
FIM_PROMPT = f"def largest(numbers):\n    best = numbers[0]\n    for number in {RUN}:\n"
FIM_SUFFIX = "    return best\n"
STREAM_PROMPT = f"import os\n\nclass {RUN.capitalize()}:\n    def __init__(self):\n"
SEEDED_PROMPT = f"fn {RUN}() {{\n    let mut values = "
MANY_LINES_PROMPT = "fn main() {\n    let mut values = "
CHAT = [{"role": "user", "content": f"Write a function that adds two numbers, named {RUN}."}]


class Broken(Exception):
    """A rule that does not hold."""


def broken(why: str) -> NoReturn:
    raise Broken(why)


def expect(holds: bool, why: str) -> None:
    if not holds:
        broken(why)


def expect_equal(what: str, found: object, wanted: object) -> None:
    expect(found == wanted, f"{what}: {found!r}, expected {wanted!r}")


class Responses:
    """Sees every response before the SDK does, for what must be true of all of them."""

    def __init__(self) -> None:
        self.without_id: list[str] = []
        self.ids: list[str] = []

    def see(self, response) -> None:
        request_id = response.headers.get("x-request-id", "")
        if request_id:
            self.ids.append(request_id)
        else:
            self.without_id.append(f"{response.status_code} of {response.request.url.path}")


def expect_error(
    kind: type[openai.APIStatusError],
    status: int,
    call: Callable[[], object],
    code: str | None = None,
    param: str | None = None,
) -> openai.APIStatusError:
    """The call fails as `kind`, with our error body and the given parts of it."""
    try:
        call()
    except kind as error:
        found = error
    else:
        broken(f"the call succeeded, expected {kind.__name__} ({status})")
    expect_equal("the status", found.status_code, status)

    try:
        body = found.response.json()
    except ValueError:
        broken(f"the {status}'s body is not JSON: {found.response.text[:200]!r}")
    inner = body.get("error") if isinstance(body, dict) else None
    expect(isinstance(inner, dict), f"the {status}'s body has no object `error`: {body!r}")
    absent = {"message", "type", "param", "code"} - inner.keys()
    expect(not absent, f"the {status}'s error lacks {sorted(absent)}: {inner!r}")
    expect(bool(inner["message"]) and bool(inner["type"]), f"an empty message or type: {inner!r}")
    if code is not None:
        expect_equal("the error's code", found.code, code)
    if param is not None:
        expect_equal("the error's param", found.param, param)
    return found


def expect_usage(usage) -> None:
    expect(usage is not None, "there is no usage")
    expect(usage.prompt_tokens > 0, f"usage counts no prompt tokens: {usage!r}")
    expect_equal("usage's total", usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


class Checks:
    """One method a rule, in the order they run; a later one may ask about what an earlier did."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.responses = Responses()
        self.client = self.client_with(KEY)

    def client_with(self, key: str) -> openai.OpenAI:
        watching = openai.DefaultHttpxClient(event_hooks={"response": [self.responses.see]})
        return openai.OpenAI(
            base_url=self.base_url, api_key=key, max_retries=0, timeout=30, http_client=watching
        )

    def complete(self, prompt: str, **more):
        """A completion and where it came from."""
        raw = self.client.completions.with_raw_response.create(
            model=MODEL, prompt=prompt, **{"max_tokens": 32, **more}
        )
        return raw.parse(), raw.headers.get(SOURCE)

    def models_lists_the_model(self) -> None:
        names = [model.id for model in self.client.models.list()]
        expect(MODEL in names, f"{MODEL} is not among {names}")

    def fim_completion_comes_from_the_origin(self) -> None:
        answer, source = self.complete(FIM_PROMPT, suffix=FIM_SUFFIX)
        expect_equal(SOURCE, source, "origin")
        [choice] = answer.choices
        expect(choice.text != "", "the text is empty")
        expect(choice.finish_reason in {"stop", "length"}, f"finish_reason {choice.finish_reason}")
        expect_equal("the model", answer.model, MODEL)
        expect_usage(answer.usage)
        self.fim_text = choice.text

    def the_same_request_again_comes_from_l1_unchanged(self) -> None:
        answer, source = self.complete(FIM_PROMPT, suffix=FIM_SUFFIX)
        expect_equal(SOURCE, source, "l1")
        expect_equal("the text", answer.choices[0].text, self.fim_text)
        expect_usage(answer.usage)

    def streamed_completion_says_the_same(self) -> None:
        text, last = "", None
        stream = self.client.completions.create(
            model=MODEL,
            prompt=STREAM_PROMPT,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            text += "".join(choice.text for choice in chunk.choices)
            last = chunk
        expect(last is not None, "the stream has no chunks")
        expect_equal("the last chunk's choices", last.choices, [])
        expect_usage(last.usage)
        whole, _ = self.complete(STREAM_PROMPT)
        expect(text != "", "the text is empty")
        expect_equal("the streamed text", text, whole.choices[0].text)

    def streamed_chat_says_the_same(self) -> None:
        whole = self.client.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=32)
        [choice] = whole.choices
        expect_equal("the role", choice.message.role, "assistant")
        expect(bool(choice.message.content), "the content is empty")
        expect(choice.finish_reason in {"stop", "length"}, f"finish_reason {choice.finish_reason}")
        expect_usage(whole.usage)

        stream = self.client.chat.completions.create(
            model=MODEL, messages=CHAT, max_tokens=32, stream=True
        )
        streamed = [piece for chunk in stream for piece in chunk.choices]
        expect(streamed != [], "the stream has no choices")
        expect_equal("the first delta's role", streamed[0].delta.role, "assistant")
        text = "".join(piece.delta.content or "" for piece in streamed)
        expect_equal("the streamed content", text, choice.message.content)
        expect_equal("its finish_reason", streamed[-1].finish_reason, choice.finish_reason)

    def n_asks_for_as_many_choices(self) -> None:
        answer, _ = self.complete(FIM_PROMPT, suffix=FIM_SUFFIX, n=2)
        expect_equal("the indexes", sorted(choice.index for choice in answer.choices), [0, 1])

    def the_same_seed_gives_the_same_sample(self) -> None:
        texts = []
        for _ in range(2):
            answer, source = self.complete(
                SEEDED_PROMPT,
                temperature=0.9,
                seed=7,
                extra_headers={"Cache-Control": "no-store"},
            )
            # From a cache it would be the same for another reason.
            expect_equal(SOURCE, source, "origin")
            texts.append(answer.choices[0].text)
        expect_equal("the second text", texts[1], texts[0])

    def a_stop_string_ends_the_text_before_it(self) -> None:
        free, _ = self.complete(MANY_LINES_PROMPT)
        line, found, _ = free.choices[0].text.partition("\n")
        expect(found != "", f"the prompt gives one line only, choose another: {line!r}")
        stopped, _ = self.complete(MANY_LINES_PROMPT, stop=["\n"])
        [choice] = stopped.choices
        expect("\n" not in choice.text, f"the text has a line feed: {choice.text!r}")
        expect_equal("the text", choice.text, line)
        expect_equal("finish_reason", choice.finish_reason, "stop")

    def a_wrong_key_is_401(self) -> None:
        stranger = self.client_with("nh-nobody")
        expect_error(
            openai.AuthenticationError,
            401,
            lambda: stranger.completions.create(model=MODEL, prompt="fn"),
            code="invalid_api_key",
        )

    def an_unknown_model_is_404(self) -> None:
        expect_error(
            openai.NotFoundError,
            404,
            lambda: self.client.completions.create(model="no-such-model", prompt="fn"),
            code="model_not_found",
        )

    def a_temperature_out_of_range_is_400_and_named(self) -> None:
        expect_error(
            openai.BadRequestError,
            400,
            lambda: self.complete("fn", temperature=9),
            param="temperature",
        )

    def a_chat_longer_than_the_context_is_400_and_says_the_limit(self) -> None:
        long = [{"role": "user", "content": f"{RUN}\n" + "let x = y + z;\n" * 2 * CONTEXT_LENGTH}]
        error = expect_error(
            openai.BadRequestError,
            400,
            lambda: self.client.chat.completions.create(model=MODEL, messages=long),
            code="context_length_exceeded",
        )
        expect(str(CONTEXT_LENGTH) in error.message, f"the limit is not in {error.message!r}")

    def a_body_over_the_limit_is_413(self) -> None:
        expect_error(openai.APIStatusError, 413, lambda: self.complete("x" * (6 << 20)))

    def every_response_has_its_own_request_id(self) -> None:
        absent = self.responses.without_id
        expect(not absent, f"no x-request-id on {', '.join(absent)}")
        ids = self.responses.ids
        expect_equal("the number of different request ids", len(set(ids)), len(ids))

    def all(self) -> list[Callable[[], None]]:
        return [
            self.models_lists_the_model,
            self.fim_completion_comes_from_the_origin,
            self.the_same_request_again_comes_from_l1_unchanged,
            self.streamed_completion_says_the_same,
            self.streamed_chat_says_the_same,
            self.n_asks_for_as_many_choices,
            self.the_same_seed_gives_the_same_sample,
            self.a_stop_string_ends_the_text_before_it,
            self.a_wrong_key_is_401,
            self.an_unknown_model_is_404,
            self.a_temperature_out_of_range_is_400_and_named,
            self.a_chat_longer_than_the_context_is_400_and_says_the_limit,
            self.a_body_over_the_limit_is_413,
            self.every_response_has_its_own_request_id,
        ]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: openai_sdk.py BASE_URL    (http://127.0.0.1:8080/v1)")
    for check in Checks(sys.argv[1]).all():
        try:
            check()
        except Broken as why:
            sys.exit(f"FAILED {check.__name__}: {why}")
        except Exception as error:  # whatever the SDK makes of a malformed answer
            sys.exit(f"FAILED {check.__name__}: {type(error).__name__}: {error}")
        print(f"ok {check.__name__}", flush=True)


if __name__ == "__main__":
    main()
