"""Names of text encoders, as `text.encoder` and `--text-encoder` take them."""

from stunet import extensions

# Family of encoders -> what is in the directory that follows its name, as in "t5:DIR". "" stands
# for a family that needs no directory.
FAMILIES = {
    "bytes": "",
    "minilm": "",
    "t5": "a T5-v1.1 checkpoint",
    "clip": "a CLIP text model, such as text_encoder of Stable Diffusion 1 or 2",
    "sdxl": "Stable Diffusion XL with its folders text_encoder and text_encoder_2",
}
PREFIXES = tuple(f"{family}:" for family, content in FAMILIES.items() if content)
CHOICES = ", ".join(
    f"{family}:DIR (DIR holds {content})" if content else family
    for family, content in FAMILIES.items()
)


def is_known(name: str) -> bool:
    """Tells whether `name` is a family's name, with a directory where the family needs one."""
    family, _, directory = name.partition(":")
    return family in FAMILIES and bool(FAMILIES[family]) == bool(directory)


def pools(name: str) -> bool:
    """Tells whether an encoder gives each caption one more state: the pooled text, which is first.

    Stable Diffusion XL's does. The pooled text has no padding after it, so zeros fill its state up.
    """
    return name.partition(":")[0] == "sdxl"


def is_clip(name: str) -> bool:
    """Tells whether an encoder is made of text models of CLIP, which LoRA files may change."""
    return name.partition(":")[0] in ("clip", "sdxl")


def is_own(name: str) -> bool:
    """Tells whether `name` is that of a user's own encoder, as in "package.module:name"."""
    return name.partition(":")[0] not in FAMILIES and extensions.names_object(name)


def path(name: str) -> str:
    """Returns the directory in the name of an encoder, or the whole name if it has none."""
    return next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name)
