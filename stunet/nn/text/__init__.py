"""Turns captions into token states that the network attends to.

`byte_ngrams` needs nothing but the words; `t5` and `bert` are transformers in Flax, whose weights
`checkpoint` reads from safetensors files and whose token ids `tokens` makes. This is the one place
under `nn/` that reads files.
"""

from collections.abc import Callable, Sequence
from typing import Any

from stunet.errors import UserError
from stunet.nn.text.byte_ngrams import BytesEncoder, Encoded

# Also has `max_length`, `dim` and `fingerprint`, which stands for its weights and its tokenizer.
TextEncoder = Callable[[Sequence[str]], Encoded]

_BYTES_DIM = 64


def text_encoder(
    name: str, max_length: int, dim: int | None = None, fingerprint: str = ""
) -> TextEncoder | Any:
    """Makes an encoder.

    Args:
      name: "bytes"; "minilm", the sentence encoder all-MiniLM-L6-v2; or "t5:DIR", a T5-v1.1
        checkpoint in a directory.
      max_length: tokens in a caption (l); longer captions are cut.
      dim: size of a token's state (d). That of "bytes" is free; of the others it is checked. None:
        the encoder's own, or 64.
      fingerprint: the encoder's, where it must be the very one that something was made with.

    Returns:
      A function of n captions that gives states float32 [n, l, d] and a mask bool [n, l], with
      attributes `max_length`, `dim` and `fingerprint`. An empty caption has no token. The weights
      are read when it is first called.

    Raises:
      UserError: an unknown name, a missing package or file, a size that does not fit, another
        fingerprint than asked for.
    """
    kind, _, place = name.partition(":")
    if kind not in ("bytes", "minilm", "t5") or (kind == "t5") != bool(place):
        raise UserError(
            f"unknown text encoder {name!r}; choose one of bytes, minilm, and t5:DIR, whose DIR "
            "holds a T5-v1.1 checkpoint"
        )
    if kind == "bytes":
        dim = _BYTES_DIM if dim is None else dim
        if max_length < 1 or dim < 8:
            raise UserError(
                "a text encoder needs a max_length of at least 1 and a dim of at least 8, not"
                f" {max_length} and {dim}"
            )
        return BytesEncoder(max_length, dim)
    # Flax and tokenizers take a second to import, which the bytes do not need.
    from stunet.nn.text import pretrained

    encoder = pretrained.PretrainedEncoder(kind, place, max_length)
    if dim not in (None, encoder.dim):
        raise UserError(
            f"the text dim is {dim}, and the states of {name!r} have {encoder.dim} features; set "
            f"text.dim (--text-dim of prepare) to {encoder.dim}"
        )
    if fingerprint not in ("", encoder.fingerprint):
        raise UserError(
            f"the text encoder {name!r} is another than the one trained with: the fingerprint of "
            f"its weights and tokenizer is {encoder.fingerprint} and not {fingerprint}; use the "
            "same weights again, or train anew"
        )
    return encoder
