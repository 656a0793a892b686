"""Text encoders: turn captions into the token states that the network attends to.

`byte_ngrams` needs no files. `t5`, `bert` and `clip` are transformers in Flax: `checkpoint` reads
their weights from safetensors files, and `tokenizer` turns captions into token ids. Only text
encoders and autoencoders, of all `nn/`, read files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stunet import extensions
from stunet.configs import text_encoders
from stunet.errors import UserError
from stunet.nn.text.byte_ngrams import BytesEncoder, Encoded
from stunet.stores import mirror

# An encoder also has the attributes `max_length`, `dim` and `fingerprint`, and the method `is_cut`
# (see `text_encoder`).
TextEncoder = Callable[[Sequence[str]], Encoded]

_DEFAULT_BYTES_DIM = 64


def text_encoder(
    name: str, max_length: int, dim: int | None = None, fingerprint: str = ""
) -> TextEncoder | Any:
    """Makes a text encoder.

    Args:
        name: "bytes"; "minilm", the sentence encoder all-MiniLM-L6-v2; "t5:DIR", the T5-v1.1
            checkpoint in the directory DIR; "clip:DIR", the CLIP text model in DIR; "sdxl:DIR",
            both text models of Stable Diffusion XL; or a user's own function,
            "package.module:name", which makes an encoder from max_length and dim.
        max_length: tokens in each caption (l); longer captions are cut.
        dim: features of each token state (d). "bytes" takes any number from 8, and None means 64.
            Each other encoder takes None or its own number.
        fingerprint: expected fingerprint of the encoder's weights and tokenizer; "" for any.

    Returns:
        The text encoder. A call with n captions returns their states, float32 [n, l, d], and a
        mask, bool [n, l]. "sdxl:DIR" has one more state before those of the tokens
        (`stunet.nn.text.sdxl`). Weights are read in the first call. The encoder has the attributes
        `max_length`, `dim` and `fingerprint`. Its method `is_cut(caption)` tells whether a caption
        is too long. Calls also print the first few such captions on stderr. An empty caption has
        no token.

    Raises:
        UserError: the name is unknown, a package or file is missing, a size does not fit, or the
            fingerprint is not the expected one.
    """
    family, _, directory = name.partition(":")
    if text_encoders.is_own(name):
        encoder = extensions.load(name, extensions.TextEncoder)(max_length, dim)
    elif not text_encoders.is_known(name):
        raise UserError(f"unknown text encoder {name!r}; choose one of {text_encoders.CHOICES}")
    elif family == "bytes":
        dim = _DEFAULT_BYTES_DIM if dim is None else dim
        if max_length < 1 or dim < 8:
            raise UserError(
                "a text encoder needs a max_length of at least 1 and a dim of at least 8, not"
                f" {max_length} and {dim}"
            )
        return BytesEncoder(max_length, dim)
    else:
        # Imported here because Flax and tokenizers, which "bytes" does not need, take a second.
        from stunet.nn.text import pretrained, sdxl

        folder = _fetched(family, directory) if directory else pretrained.minilm_folder()
        if family == "sdxl":
            encoder = sdxl.SdxlEncoder(folder, max_length)
        else:
            encoder = pretrained.PretrainedEncoder(family, folder, max_length)
    if dim not in (None, encoder.dim):
        raise UserError(
            f"the text dim is {dim}, and the states of {name!r} have {encoder.dim} features; set "
            f"text.dim to {encoder.dim}"
        )
    if fingerprint not in ("", encoder.fingerprint):
        raise UserError(
            f"the text encoder {name!r} is not the one used in training: the fingerprint of its "
            f"weights and tokenizer is {encoder.fingerprint}, not {fingerprint}; use the same "
            "weights, or train again"
        )
    return encoder


def _fetched(family: str, directory: str) -> Path:
    """Returns the folder of an encoder. If it is in a bucket, the files it needs are downloaded."""
    from stunet.nn.text import sdxl, tokenizer

    if family == "sdxl":
        return mirror.fetched(directory, sdxl.reads).expanduser()
    folder = mirror.fetched(directory).expanduser()
    if not tokenizer.find_in(folder):
        mirror.pull(tokenizer.beside(folder))
    return folder
