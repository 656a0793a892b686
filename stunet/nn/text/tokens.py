"""Captions to token ids, as a checkpoint's tokenizer.json or spiece.model says."""

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from stunet.errors import UserError

_UNIGRAM, _UNKNOWN = 1, 2  # A model's and a piece's type in SentencePiece's files.


def find(directory: Path) -> Path:
    """The tokenizer's file: in `directory`, or in `tokenizer` beside it, as in the pipelines of
    diffusers.

    Raises:
        UserError: there is none.
    """
    for place in (directory, directory.absolute().parent / "tokenizer"):
        for name in ("tokenizer.json", "spiece.model"):
            if (place / name).is_file():
                return place / name
    raise UserError(
        f"{directory} has no tokenizer: put the checkpoint's tokenizer.json or spiece.model there"
    )


def load(file: Path, max_length: int, vocab_size: int) -> Tokenizer:
    """A tokenizer that cuts captions to `max_length` tokens, special ones included, and adds no
    padding, whatever the file says of both.

    Args:
        file: of `find`.
        max_length: must leave room for a token beside the special ones.
        vocab_size: of the model that takes the ids.

    Raises:
        UserError: a damaged file or one of another model, or a `max_length` that is too small.
    """
    tokenizer = _from_sentencepiece(file) if file.suffix == ".model" else _from_json(file)
    special = tokenizer.num_special_tokens_to_add(False)
    if max_length <= special:
        raise UserError(
            f"the text max_length is {max_length}, and {file} adds {special} tokens to each "
            f"caption; it must be at least {special + 1}"
        )
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= vocab_size:
        raise UserError(
            f"{file} has token ids up to {largest} and the checkpoint {vocab_size} tokens; it "
            "belongs to another checkpoint"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _from_json(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # `tokenizers` raises nothing more special.
        raise UserError(f"{file} is damaged, or of a newer tokenizers ({error})") from error


def _from_sentencepiece(file: Path) -> Tokenizer:
    """A SentencePiece unigram model, as T5 has it, with `</s>` after each caption."""
    model = _model_class()()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise UserError(f"{file} is damaged: no SentencePiece model ({error})") from error
    pieces = [(p.piece, p.score) for p in model.pieces]
    unknown = [i for i, p in enumerate(model.pieces) if p.type == _UNKNOWN]
    ends = [i for i, p in enumerate(model.pieces) if p.piece == "</s>"]
    if model.trainer_spec.model_type not in (0, _UNIGRAM) or not (unknown and ends):
        raise UserError(f"{file} is no unigram model with the token </s>, as T5's is")
    tokenizer = Tokenizer(models.Unigram(pieces, unknown[0], byte_fallback=False))
    if model.normalizer_spec.precompiled_charsmap:
        charsmap = model.normalizer_spec.precompiled_charsmap
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    # SentencePiece drops spaces at the ends and repeated ones, and begins a text with one.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ends[0])]
    )
    return tokenizer


def _model_class():
    """The parts of sentencepiece_model.proto that are needed here, as a protobuf class.

    Made by hand, for `tokenizers` reads no such file and the package sentencepiece would be one
    more to install for 40 lines. Enums are read as the integers that they are on the wire.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="spiece.proto", package="stunet.spiece")

    def message(name: str, *parts) -> None:
        described = file.message_type.add(name=name)
        for part_name, number, kind, *of in parts:
            repeated = part_name == "pieces"
            described.field.add(
                name=part_name,
                number=number,
                type=kind,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type_name=f".stunet.spiece.{of[0]}" if of else None,
            )

    message("Normalizer", ("precompiled_charsmap", 2, field.TYPE_BYTES))
    message("Trainer", ("model_type", 3, field.TYPE_INT32))
    message(
        "Piece",
        ("piece", 1, field.TYPE_STRING),
        ("score", 2, field.TYPE_FLOAT),
        ("type", 3, field.TYPE_INT32),
    )
    message(
        "Model",
        ("pieces", 1, field.TYPE_MESSAGE, "Piece"),
        ("trainer_spec", 2, field.TYPE_MESSAGE, "Trainer"),
        ("normalizer_spec", 3, field.TYPE_MESSAGE, "Normalizer"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("stunet.spiece.Model"))
