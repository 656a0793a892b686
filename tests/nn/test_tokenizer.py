"""Tokenizers give the ids of the library that wrote their file."""

import json

import pytest
from tokenizers import Tokenizer, models, processors

from stunet.errors import UserError
from stunet.nn.text import tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXT = "a dog runs left\nthe cat runs right\nquick brown foxes jump over lazy dogs\n12 345 6789\n"
CAPTIONS = [
    "a dog runs left",
    "  Two   dogs,\tand a  cat \n",
    "ﬁne ½ Ｗｉｄｅ  猫が走る🎬🎬 x",
    "unquickable",
    "12.5",
]


@pytest.fixture(scope="module")
def spiece(tmp_path_factory):
    """Writes a unigram model with T5's special tokens to `tokenizer/`, beside `text_encoder/`."""
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("tokenizer", "text_encoder"):
        (root / name).mkdir()
    (root / "text.txt").write_text(TEXT * 20)
    special = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    sentencepiece.SentencePieceTrainer.train(
        input=str(root / "text.txt"),
        model_prefix=str(root / "tokenizer" / "spiece"),
        vocab_size=40,
        minloglevel=2,
        **special,
    )
    return root


def test_ids_equal_those_of_sentencepiece(spiece):
    file = tokenizer.find(spiece / "text_encoder")
    assert file == spiece / "tokenizer" / "spiece.model"
    loaded = tokenizer.load(file, 64, 40)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(file))
    for caption in CAPTIONS:
        assert loaded.encode(caption).ids == [*reference.encode(caption), 1]
    assert tokenizer.load(file, 4, 40).encode(CAPTIONS[0]).ids[-1] == 1


def test_damaged_and_foreign_files_are_refused(spiece, tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="is damaged: it is no SentencePiece model"):
        tokenizer.load(tokenizer.find(tmp_path), 8, 40)
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(UserError, match="no unigram model with the token </s>"):
        tokenizer.load(tokenizer.find(tmp_path), 8, 40)
    with pytest.raises(UserError, match="token ids up to 39 and the checkpoint 32 tokens"):
        tokenizer.load(spiece / "tokenizer" / "spiece.model", 8, 32)


def test_a_file_that_makes_the_tokenizer_panic_is_refused(tmp_path):
    """A template that names a special token which it does not define, found by `make faults`."""
    made = Tokenizer(models.Unigram([("a", 0.0), ("</s>", 0.0)], 0))
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    content = json.loads(made.to_str())
    content["post_processor"]["special_tokens"] = {}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        tokenizer.load(file, 8, 40)
