import json

import pytest
import typer
from typer.testing import CliRunner

from ganvas import doctor as examination
from ganvas.cli import doctor
from ganvas.doctor import Finding

FINE = [Finding("Python", "ok", "3.12.1, 64 bit"), Finding("device", "note", "hidden", "unset CUDA_VISIBLE_DEVICES")]
FAULT = Finding("PyTorch", "fault", "cannot be imported (ImportError: no libcudart)", "see pytorch.org/get-started")


@pytest.fixture
def examined(monkeypatch):
    """`ganvas doctor ARGS` on a machine with these findings."""
    def run(findings, *args):
        monkeypatch.setattr(examination, "examine", lambda: findings)
        app = typer.Typer()
        app.command()(doctor.doctor)
        return CliRunner().invoke(app, args)
    return run


def test_findings_stand_in_columns_with_the_remedy_below(examined):
    done = examined(FINE)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "ok    Python  3.12.1, 64 bit", "note  device  hidden", "              -> unset CUDA_VISIBLE_DEVICES", "",
        "1 note; each with what mends it after ->"]


def test_a_fault_exits_1_and_is_plain_to_see(examined):
    done = examined([*FINE, FAULT])
    assert done.exit_code == 1
    assert "FAULT  PyTorch  cannot be imported (ImportError: no libcudart)" in done.output
    assert done.output.rstrip().endswith("1 fault and 1 note; each with what mends it after ->")


def test_a_machine_without_faults_is_well(examined):
    assert examined(FINE[:1]).output.rstrip().endswith("All is well.")


def test_json_is_versioned_and_exits_alike(examined):
    done = examined([*FINE, FAULT], "--json")
    answer = json.loads(done.output)
    assert done.exit_code == 1 and answer["version"] == 1
    assert answer["findings"][0] == {"name": "Python", "state": "ok", "text": "3.12.1, 64 bit", "remedy": ""}
    assert [finding["state"] for finding in answer["findings"]] == ["ok", "note", "fault"]


def test_long_texts_are_wrapped_under_their_column_and_words_stay_whole():
    path = "/a" * 60
    finding = Finding("cache", "note", f"{path}: 1.0 GB free: little and more words than fit in a line", "mend it")
    text = doctor.table([finding], 60)
    lines = text.splitlines()
    assert path + ":" in text
    assert all(line.startswith(" " * 13) for line in lines[1:]) and len(lines) > 3
    assert lines[-1] == " " * 13 + "-> mend it"


def test_the_table_survives_a_terminal_that_knows_ascii_only():
    doctor.table([*FINE, FAULT], 80).encode("ascii")
