"""Writes a tiny T5-v1.1 checkpoint of random weights with transformers, and a tokenizer."""

import pathlib

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["▁a", "▁dog", "▁cat", "▁runs", "▁left", "▁right", "▁up", "s", "▁", "d", "o", "g"]
PIECES = ["<pad>", "</s>", "<unk>", *WORDS]
DIM = 32


def model(seed: int = 0) -> transformers.T5EncoderModel:
    """Returns a T5 of 3 layers, in which no weight is zero or one, as a missing one might be."""
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
    t5 = transformers.T5EncoderModel(config).eval()
    with torch.no_grad():
        for parameter in t5.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return t5


def save(directory: pathlib.Path, seed: int = 0, **kwargs) -> transformers.T5EncoderModel:
    """Writes a checkpoint and its tokenizer, and returns the model.

    Args:
        directory: directory of the checkpoint.
        seed: seed of the weights.
        **kwargs: arguments of `save_pretrained`.
    """
    t5 = model(seed)
    t5.save_pretrained(directory, **kwargs)
    tokenizer = Tokenizer(models.Unigram([(p, -float(i)) for i, p in enumerate(PIECES)], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    return t5


def reference(model, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the states that PyTorch computes, `[b, l, d]`."""
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}
        return model(**inputs).last_hidden_state.numpy()
