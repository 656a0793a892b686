"""A T5-v1.1 checkpoint of random weights, as transformers writes it, with a small tokenizer."""

import pathlib

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["▁a", "▁dog", "▁cat", "▁runs", "▁left", "▁right", "▁up", "s", "▁", "d", "o", "g"]
PIECES = ["<pad>", "</s>", "<unk>", *WORDS]
DIM = 32


def model(seed: int = 0) -> transformers.T5EncoderModel:
    """Of 3 layers; no weight is at a value at which it might as well be missing."""
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=64,
        d_model=DIM,
        d_kv=8,
        d_ff=48,
        num_layers=3,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    made = transformers.T5EncoderModel(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def save(directory: pathlib.Path, seed: int = 0, **kwargs) -> transformers.T5EncoderModel:
    """Writes a checkpoint, with `kwargs` of `save_pretrained`, and returns the model."""
    made = model(seed)
    made.save_pretrained(directory, **kwargs)
    tokenizer = Tokenizer(models.Unigram([(p, -float(i)) for i, p in enumerate(PIECES)], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    return made


def reference(made, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The states by PyTorch, `[b, l, d]`."""
    with torch.no_grad():
        given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}
        return made(**given).last_hidden_state.numpy()
