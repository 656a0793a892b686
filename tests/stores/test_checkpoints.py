"""A bucket that fails while a checkpoint is written ends the run with one sentence."""

import pytest
from etils import epath

from stunet.errors import UserError
from stunet.train.saved.checkpoints import Checkpoints


@pytest.mark.parametrize("where", ["gs://bucket/run/checkpoints", ""])
def test_an_error_of_a_bucket_is_told_in_one_sentence(where, tmp_path):
    class Fails:
        def wait(self):
            raise RuntimeError("HttpError\n503 for any request")

    checkpoints = object.__new__(Checkpoints)
    checkpoints.directory = epath.Path(where) if where else tmp_path
    checkpoints._orbax, checkpoints._saving, checkpoints._saves = Fails(), None, None
    if where:
        with pytest.raises(UserError, match=f"{where} cannot be written: 503 for any request; ch"):
            checkpoints.wait()
    else:  # Errors of a disk are explained elsewhere.
        with pytest.raises(RuntimeError):
            checkpoints.wait()
