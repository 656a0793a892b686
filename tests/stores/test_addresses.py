import pathlib

import pytest

from stunet.errors import UserError
from stunet.stores import addresses, mirror, objects


def test_other_addresses_are_refused():
    with pytest.raises(UserError, match="gs:// or s3://"):
        addresses.local("hdfs://a/b")
    with pytest.raises(UserError, match="names no bucket"):
        addresses.local("gs://")
    with pytest.raises(UserError, match="names no bucket"):
        addresses.local("gs://bucket/../../etc")
    assert addresses.local("a/b") == pathlib.Path("a/b")
    assert addresses.address(pathlib.Path("a/b")) == ""
    path = addresses.local("s3://bucket/a/b")
    assert addresses.address(path / "c") == "s3://bucket/a/b/c"
    assert addresses.shown(f"cannot read {path}/x.json") == "cannot read s3://bucket/a/b/x.json"


def test_no_name_leads_out_of_the_copy(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("../outside", "a/../../outside", "/outside", "a//outside", "..", ".hidden", "good")
    monkeypatch.setattr(objects, "listing", lambda _: {n: objects.Object(1, "1") for n in names})
    monkeypatch.setattr(objects, "fetch", lambda address, file: file.write_text(address))
    mirror.pull(addresses.local("gs://bucket/a/b"))
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."]
    assert [path.name for path in found] == ["good"]
