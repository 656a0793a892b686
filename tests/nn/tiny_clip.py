"""Writes tiny CLIP text models of random weights with transformers, and CLIP's tokenizer."""

import json
import pathlib

import torch
import transformers
from tokenizers import pre_tokenizers

MERGES = ["d o", "do g</w>", "c a", "ca t</w>", "r u", "ru n", "l e", "' s</w>", "a n", "an d</w>"]
START, END = "<|startoftext|>", "<|endoftext|>"
DIM = 32


def vocabulary() -> dict[str, int]:
    """Returns CLIP's layout: bytes, bytes that end a word, merges, and the two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["".join(pair.split()) for pair in MERGES]
    # Stable Diffusion 2 pads with the first token, "!".
    alphabet.sort(key=lambda letter: letter != "!")
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *merged, START, END]
    return {token: number for number, token in enumerate(tokens)}


def model(seed: int = 0, projection: int | None = None, **config) -> torch.nn.Module:
    """Returns a text model of 3 layers, in which no weight is zero or one.

    Args:
        seed: seed of the weights.
        projection: features of the pooled text, or None for a model without it.
        **config: changes to the config.
    """
    torch.manual_seed(seed)
    tokens = vocabulary()
    settings = dict(
        vocab_size=len(tokens),
        hidden_size=DIM,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=20,
        bos_token_id=tokens[START],
        eos_token_id=tokens[END],
        projection_dim=projection or DIM,
    )
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    made = kind(transformers.CLIPTextConfig(**(settings | config))).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def save_tokenizer(directory: pathlib.Path, padding: str = END) -> None:
    """Writes vocab.json, merges.txt and the file that names the padding token."""
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary()))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    (directory / "special_tokens_map.json").write_text(json.dumps({"pad_token": padding}))
