"""Loads the tokenizer of a checkpoint from its tokenizer.json or spiece.model."""

import math
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from stunet.errors import UserError

# Enum values in the files of SentencePiece: the type of a unigram model, and of the unknown piece.
_UNIGRAM, _UNKNOWN = 1, 2


def find(directory: Path) -> Path:
    """Returns the file of the tokenizer.

    The file is in `directory`, or in a directory named `tokenizer` beside it, as in the pipelines
    of diffusers.

    Raises:
        UserError: neither directory has a tokenizer.
    """
    for place in (directory, directory.absolute().parent / "tokenizer"):
        for name in ("tokenizer.json", "spiece.model"):
            if (place / name).is_file():
                return place / name
    raise UserError(
        f"{directory} has no tokenizer: put the checkpoint's tokenizer.json or spiece.model there"
    )


def load(file: Path, max_length: int, vocab_size: int) -> Tokenizer:
    """Loads a tokenizer that cuts captions to `max_length` tokens and adds no padding.

    Settings for truncation and padding in the file are ignored.

    Args:
        file: the tokenizer's file (`find`).
        max_length: largest number of tokens in each caption, special tokens included. There must
            be room for at least one other token.
        vocab_size: number of token ids that the model knows.

    Raises:
        UserError: the file is damaged or belongs to another model, or `max_length` is too small.
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
    try:
        # A character that no tokenizer knows, which some damaged files cannot encode.
        tokenizer.encode("a \U0010fffd")
    except Exception as error:  # `tokenizers` raises no narrower class.
        raise UserError(f"{file} is damaged: it cannot encode every caption ({error})") from error
    return tokenizer


def _from_json(file: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
        # Some mistakes in the file show only when it is used.
        tokenizer.encode("a b")
    # `tokenizers` raises no narrower class. Its panics are no `Exception`.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(
            f"{file} is damaged, or written by a newer version of tokenizers ({error})"
        ) from error
    return tokenizer


def _from_sentencepiece(file: Path) -> Tokenizer:
    """Reads a SentencePiece unigram model, such as T5's, and ends each caption with `</s>`."""
    model = _model_class()()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise UserError(f"{file} is damaged: it is no SentencePiece model ({error})") from error
    pieces = [(p.piece, p.score) for p in model.pieces]
    if not all(isinstance(piece, str) and math.isfinite(score) for piece, score in pieces):
        # protobuf returns bytes where a text is not UTF-8.
        raise UserError(f"{file} is damaged: a piece is no text, or its score is no number")
    unknown = [i for i, p in enumerate(model.pieces) if p.type == _UNKNOWN]
    ends = [i for i, p in enumerate(model.pieces) if p.piece == "</s>"]
    if model.trainer_spec.model_type not in (0, _UNIGRAM) or not (unknown and ends):
        raise UserError(
            f"{file} is no unigram model with the token </s>; the spiece.model of a T5 is one"
        )
    tokenizer = Tokenizer(models.Unigram(pieces, unknown[0], byte_fallback=False))
    if model.normalizer_spec.precompiled_charsmap:
        charsmap = model.normalizer_spec.precompiled_charsmap
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    # SentencePiece drops repeated spaces and those at both ends, then puts one before the text.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ends[0])]
    )
    return tokenizer


def _model_class():
    """Returns a protobuf class with the needed parts of sentencepiece_model.proto.

    The class is made by hand because `tokenizers` cannot read such files, and the package
    sentencepiece would be one more dependency, to save 40 lines. Enums are declared as integers,
    because files store them as integers.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="spiece.proto", package="stunet.spiece")

    def message(name: str, *fields) -> None:
        """Declares a type of Protocol Buffers messages.

        Args:
            name: name of the type.
            *fields: name, number and type of each field. For a field that holds a message itself,
                the name of that message's type follows.
        """
        declared = file.message_type.add(name=name)
        for field_name, number, field_type, *message_type in fields:
            repeated = field_name == "pieces"
            declared.field.add(
                name=field_name,
                number=number,
                type=field_type,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type_name=f".stunet.spiece.{message_type[0]}" if message_type else None,
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
