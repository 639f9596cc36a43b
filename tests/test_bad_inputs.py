"""Each bad input is answered with its one line, and leaves nothing half-written."""

import shutil

import pytest
import yaml
from make import bad_inputs

LINES = yaml.safe_load(bad_inputs.LINES.read_text())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    bad_inputs.base(folder)
    return folder


def test_every_case_has_a_line_and_every_line_a_case():
    assert list(LINES) == list(bad_inputs.CASES) and len(LINES) >= 60


@pytest.mark.parametrize("name", bad_inputs.CASES)
def test_a_bad_input_is_answered_with_its_line(name, sound, tmp_path, monkeypatch):
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    folder = shutil.copytree(sound, tmp_path / "one")
    said = bad_inputs.line_of(name, folder)
    assert said == LINES[name] + "\n"
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not (folder / "w.parquet").is_file() and not (folder / "new/checkpoints").exists()
    assert not [path for path in folder.rglob(".*-*") if path.is_file()]
