"""The notebook's code runs, and its outputs are there."""

import json
import pathlib

import stand_in

FILE = pathlib.Path(__file__).parents[1] / "docs" / "how-to" / "sampling.ipynb"
CODE = [c for c in json.loads(FILE.read_text())["cells"] if c["cell_type"] == "code"]


def test_every_cell_runs_on_any_run_that_makes_clips(tmp_path, monkeypatch):
    stand_in.replace_network(monkeypatch, lambda inputs, time: 0.5 * inputs[..., :1])
    workdir = tmp_path / "runs" / "quickstart"
    stand_in.save(stand_in.config(), workdir)
    monkeypatch.chdir(tmp_path)
    seen = {}
    for cell in CODE:
        exec("".join(cell["source"]), seen)
    assert seen["clip"].shape == (4, 8, 8, 1)
    assert seen["clips"].shape == (3, 4, 8, 8, 1)
    written = {file.suffix for file in (workdir / "samples").iterdir()}
    assert written == {".gif", ".mp4"}


def test_outputs_are_there_as_the_cells_ran():
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 4
