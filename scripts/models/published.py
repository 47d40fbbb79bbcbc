"""The JSON files that models are published with, and how a folder of them is written."""

import json
import pathlib

# ChatML, as most instruction models are published with. Its marks are no tokens of our own
# vocabularies and become letters there: good enough to render.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def as_json(content: object) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def tokenizer_config(tokenizer: bytes, context_length: int, end_token: int) -> dict:
    """What `tokenizer.json` does not say: which special token is which, and how to chat."""
    added = json.loads(tokenizer)["added_tokens"]
    text = {token["id"]: token["content"] for token in added}
    kept = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {
        "added_tokens_decoder": {
            str(token["id"]): {field: token[field] for field in kept} for token in added
        },
        "bos_token": text[end_token],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": text[end_token],
        "model_max_length": context_length,
        "pad_token": text[end_token],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def config(sizes: dict, end_token: int) -> dict:
    """Transformers' description of a decoder. `sizes` is all that is not said of the tokens."""
    return {"bos_token_id": end_token, "eos_token_id": end_token, **sizes}


def generation_config(end_token: int) -> dict:
    return {
        "_from_model_config": True,
        "bos_token_id": end_token,
        "eos_token_id": end_token,
        "pad_token_id": end_token,
    }


def genai_config(sizes: dict, context_length: int, end_token: int) -> dict:
    """onnxruntime-genai's description of a decoder.

    `sizes` has head_size, hidden_size, num_attention_heads, num_hidden_layers, num_key_value_heads
    and vocab_size.
    """
    decoder = {name: size for name, size in sizes.items() if name != "vocab_size"}
    return {
        "model": {
            "bos_token_id": end_token,
            "context_length": context_length,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx",
                **decoder,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
            "eos_token_id": end_token,
            "pad_token_id": end_token,
            "type": "llama",
            "vocab_size": sizes["vocab_size"],
        },
        "search": {
            "diversity_penalty": 0.0,
            "do_sample": False,
            "early_stopping": True,
            "length_penalty": 1.0,
            "max_length": context_length,
            "min_length": 0,
            "no_repeat_ngram_size": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    """Writes the files, whose names may lead into folders within."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
