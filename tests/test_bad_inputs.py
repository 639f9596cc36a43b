"""Each invalid input causes exactly its error line, and nothing is left half-written."""

import shutil

import pytest
import yaml
from make import bad_inputs

LINES = yaml.safe_load(bad_inputs.LINES.read_text())


def quick_and_slow() -> list:
    """Returns all cases; slow are those that parse a configuration, but the first of a source."""
    cases, seen = [], set()
    for name in bad_inputs.CASES:
        source = name.partition(":")[0]
        quick = source in ("boxes", "videos", "JAAD", "video") or source not in seen
        cases.append(name if quick else pytest.param(name, marks=pytest.mark.slow))
        seen.add(source)
    return cases


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    bad_inputs.base(folder)
    return folder


def test_every_case_has_a_line_and_every_line_a_case():
    assert list(LINES) == list(bad_inputs.CASES) and len(LINES) >= 60


@pytest.mark.parametrize("name", quick_and_slow())
def test_invalid_input_causes_its_error_line(name, valid, tmp_path, monkeypatch):
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    folder = shutil.copytree(valid, tmp_path / "one")
    line = bad_inputs.line_of(name, folder)
    assert line == LINES[name] + "\n"
    assert line.startswith("error: ") and line.count("\n") == 1
    assert not (folder / "w.parquet").is_file() and not (folder / "new/checkpoints").exists()
    assert not [path for path in folder.rglob(".*-*") if path.is_file()]
