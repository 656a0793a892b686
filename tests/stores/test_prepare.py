"""`stunet prepare` with videos and shots in buckets, on emulators."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest
from videos import make_video, noise

from stunet import cli
from stunet.data.shots import layout
from stunet.stores import addresses, mirror, objects

pytestmark = pytest.mark.slow
_HOW = ("--side=16", "--fps=10", "--min-seconds=0.5", "--max-seconds=3", "--cut-threshold=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare") / "videos"
    for i in range(4):
        make_video(folder / "deep" / f"{i}.mp4", noise(40, i))
    (folder / "broken.mp4").write_bytes((folder / "deep" / "0.mp4").read_bytes()[:900])
    (folder / "deep" / "0.txt").write_text("the first")
    lines = [{"file": "deep/1.mp4", "caption": "the second"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """The shards of a set on a disk."""
    out = folder.parent / "shots"
    assert cli.main(["prepare", str(folder), str(out), *_HOW, "--workers=1"]) == 0
    return {file.name: file.read_bytes() for file in (out / "shards").glob("*.array_record")}


def upload(folder: pathlib.Path, where: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            objects.put(f"{where}/{file.relative_to(folder).as_posix()}", file)


def shards(where: str) -> dict[str, bytes]:
    names = objects.listing(f"{where}/shards")
    return {
        name: objects.read(f"{where}/shards/{name}")[0] for name in names if name.endswith("record")
    }


def test_a_killed_command_goes_on_in_the_bucket(bucket, folder, expected):
    upload(folder, f"{bucket}/videos")
    out = f"{bucket}/shots"
    words = ["prepare", f"{bucket}/videos", out, *_HOW, "--workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stunet", *words[:-1], "--workers=2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not shards(out):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(shards(out))
    assert 0 < done < len(expected)
    assert cli.main(words) == 0
    assert shards(out) == expected
    copy = addresses.local(out)
    # Neither shards nor videos stay here.
    assert not [*copy.rglob("*.array_record"), *addresses.local(bucket).rglob("*.mp4")]
    manifest = objects.read(f"{out}/shards/000000.json")[0].decode()
    assert f"{bucket}/videos/broken.mp4 cannot be decoded" in manifest
    # The page shows clips; the list names the videos for any machine.
    assert b"<img" in objects.read(f"{out}/shots.html")[0]
    assert f'"root": "{bucket}/videos"' in objects.read(f"{out}/lists/000000.jsonl")[0].decode()
    # Nothing is left to do, on another machine too.
    mirror.pull(copy, only=layout.describes)
    before = objects.listing(out)
    assert cli.main([*words, "--verify"]) == 0
    assert {n: o for n, o in objects.listing(out).items() if "shards/" in n} == {
        n: o for n, o in before.items() if "shards/" in n
    }


# Ray takes seconds to start. Other tests try the clients of both stores.
@pytest.mark.parametrize(
    "bucket", ["gs", pytest.param("s3", marks=pytest.mark.long)], indirect=True
)
def test_a_ray_cluster_gives_the_shards_of_a_disk(bucket, folder, monkeypatch, tmp_path):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    start, elsewhere = ray.init, tmp_path / "of the cluster"

    def start_elsewhere(*words, **how):
        """The cluster's processes have another cache, as those of another machine."""
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(elsewhere))
            start(*words, **how)

    monkeypatch.setattr(ray, "init", start_elsewhere)
    videos, on_disk, out = tmp_path / "videos", tmp_path / "shots", f"{bucket}/of-ray"
    videos.mkdir()
    for name in ("broken.mp4", "deep/0.mp4"):
        shutil.copy(folder / name, videos)
    upload(videos, f"{bucket}/for-ray")
    assert cli.main(["prepare", str(videos), str(on_disk), *_HOW, "--workers=1"]) == 0
    assert cli.main(["prepare", f"{bucket}/for-ray", out, *_HOW, "--engine=ray"]) == 0
    files = (on_disk / "shards").glob("*.array_record")
    assert shards(out) == {file.name: file.read_bytes() for file in files}
    manifest = objects.read(f"{out}/shards/000001.json")[0].decode()
    assert f"{bucket}/for-ray/broken.mp4 cannot be decoded" in manifest
    # The work was done there, and leaves nothing.
    assert [*elsewhere.rglob("of-ray/shards")]
    assert not [file for file in elsewhere.rglob("*") if file.is_file()]


def test_lists_and_tar_files_in_buckets_give_the_shots_of_those_on_a_disk(bucket, folder, tmp_path):
    upload(folder, f"{bucket}/listed")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("1.mp4", "2.mp4"):
            archive.add(folder / "deep" / name, name)
    (tmp_path / "list.csv").write_text(
        "path,start,end\ndeep/2.mp4,0.5,3\ndeep/2.mp4,1,2\ngone.mp4,,\n"
    )
    objects.put(f"{bucket}/listed/list.csv", tmp_path / "list.csv")
    objects.put(f"{bucket}/tars/a.tar", tmp_path / "a.tar")
    (folder / "list.csv").write_bytes((tmp_path / "list.csv").read_bytes())
    # A list on this machine may name videos in a bucket.
    (tmp_path / "far.txt").write_text(f"{bucket}/listed/deep/3.mp4\n")
    for given, there in (
        (folder / "list.csv", f"{bucket}/listed/list.csv"),
        (tmp_path / "a.tar", f"{bucket}/tars"),
    ):
        on_disk, in_bucket = (tmp_path / f"{given.stem}-{k}" for k in ("disk", "bucket"))
        for videos, out in ((given, on_disk), (there, in_bucket)):
            assert cli.main(["prepare", str(videos), str(out), *_HOW, "--workers=1"]) == 0
        files = sorted((on_disk / "shards").glob("*.array_record"))
        assert files
        for file in files:
            assert file.read_bytes() == (in_bucket / "shards" / file.name).read_bytes()
        assert not [*in_bucket.rglob("*.mp4"), *in_bucket.rglob("*.tar")]
    assert cli.main(["prepare", str(tmp_path / "far.txt"), str(tmp_path / "far"), *_HOW]) == 0


def test_a_bucket_that_holds_something_else_is_refused(bucket, folder, tmp_path, capsys):
    objects.put(f"{bucket}/else/thesis.txt", folder / "deep" / "0.txt")
    assert cli.main(["prepare", str(folder), f"{bucket}/else", *_HOW]) == 1
    assert f"{bucket}/else exists already" in capsys.readouterr().err
    assert cli.main(["prepare", f"{bucket}/no-videos", str(tmp_path / "out"), *_HOW]) == 1
    assert f"there is no folder {bucket}/no-videos" in capsys.readouterr().err
