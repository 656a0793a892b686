"""Loads the tokenizer of a checkpoint from its tokenizer.json, spiece.model or vocab.json."""

import math
import shutil
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from stunet import jsonfiles
from stunet.errors import UserError

# Enum values in the files of SentencePiece: the type of a unigram model, and of the unknown piece.
_UNIGRAM, _UNKNOWN = 1, 2
# CLIP's special tokens.
_START, _END = "<|startoftext|>", "<|endoftext|>"
# Merges of CLIP's vocabulary, beside vocab.json.
_MERGES = "merges.txt"
# Files that may name the padding token. The first one that exists decides.
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
# How CLIP splits a caption: contractions, words, single digits, and runs of other signs.
_CLIP_WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def find(directory: Path) -> Path:
    """Returns the file of the tokenizer, which is in `directory` or `beside` it.

    Raises:
        UserError: neither directory has a tokenizer.
    """
    for place in (directory, beside(directory)):
        if file := find_in(place):
            return file
    raise UserError(
        f"{directory} has no tokenizer: put the checkpoint's tokenizer.json or spiece.model there, "
        f"or vocab.json and {_MERGES}"
    )


def find_in(place: Path) -> Path | None:
    """Returns the file of the tokenizer in a directory; None if it has none."""
    return next((place / name for name in _READERS if (place / name).is_file()), None)


def beside(directory: Path) -> Path:
    """Returns the place of the tokenizer in the pipelines of diffusers, beside a text model.

    It is `tokenizer`, or `tokenizer_2` beside `text_encoder_2`.
    """
    whole = directory.absolute()
    number = whole.name.removeprefix("text_encoder") if "text_encoder_" in whole.name else ""
    return whole.parent / f"tokenizer{number}"


def contents(file: Path) -> list[bytes]:
    """Returns the content of each file that `load` reads for the tokens of `file`."""
    merges = [file.with_name(_MERGES)] if file.name == "vocab.json" else []
    return [path.read_bytes() for path in (file, *merges)]


def copy(file: Path, directory: Path) -> None:
    """Copies the files of a tokenizer to a directory, for `find` and for transformers.

    Args:
        file: the tokenizer's file (`find`).
        directory: directory to copy to, which exists.
    """
    for name in (*_READERS, _MERGES, *_SETTINGS):
        if (beside := file.with_name(name)).is_file():
            shutil.copyfile(beside, directory / name)


def load(file: Path, max_length: int, vocab_size: int, pads: bool = False) -> Tokenizer:
    """Loads a tokenizer that cuts captions to `max_length` tokens.

    Settings for truncation and padding in the file are ignored.

    Args:
        file: the tokenizer's file (`find`).
        max_length: largest number of tokens in each caption, special tokens included. There must
            be room for at least one other token.
        vocab_size: number of token ids that the model knows.
        pads: True to fill each caption up to `max_length` tokens with the padding token that the
            files beside `file` name.

    Raises:
        UserError: the file is damaged or belongs to another model, or `max_length` is too small.
    """
    tokenizer = _READERS[file.name](file)
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
    if pads:
        token = _padding_token(file)
        number = tokenizer.token_to_id(token)
        if number is None:
            raise UserError(f"{file} has no token {token!r}, the padding that is named beside it")
        tokenizer.enable_padding(pad_id=number, pad_token=token, length=max_length)
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


def _from_bpe(file: Path) -> Tokenizer:
    """Reads CLIP's byte-pair encoding: lower-case words between a start and an end token."""
    vocabulary = jsonfiles.read(file, dict[str, int])
    for token in (_START, _END):
        if token not in vocabulary:
            raise UserError(f"{file} has no token {token!r}; the vocab.json of a CLIP has it")
    merges = file.with_name(_MERGES)
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{merges} cannot be read ({error})") from error
    # The first line may name the version.
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    try:
        model = models.BPE(
            vocab=vocabulary,
            merges=pairs,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=_END,
        )
    except Exception as error:  # `tokenizers` raises no narrower class.
        raise UserError(f"{merges} does not fit to {file} ({error})") from error
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([_START, _END])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_CLIP_WORD), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (_END, vocabulary[_END]), (_START, vocabulary[_START]), False, False
    )
    return tokenizer


def _padding_token(file: Path) -> str:
    """Returns the padding token that the files beside a tokenizer name: CLIP's end token if none.

    Stable Diffusion 1 pads with the end token, and Stable Diffusion 2 with an exclamation mark.
    """
    for name in _SETTINGS:
        place = file.with_name(name)
        token = (
            jsonfiles.read(place, jsonfiles.Object).get("pad_token") if place.is_file() else None
        )
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return _END


# Name of a tokenizer's file -> function that reads it. The first one that exists is read.
_READERS = {
    "tokenizer.json": _from_json,
    "spiece.model": _from_sentencepiece,
    "vocab.json": _from_bpe,
}


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
