"""`ganvas report`."""

import os
import shutil
from pathlib import Path

import pytest


def test_the_newest_run_gets_its_page_and_its_name_is_printed(finished, cli):
    shutil.copytree("runs/images", "runs/older")
    for path in Path("runs/older").rglob("*"):
        os.utime(path, (1, 1))
    page = Path("runs/images/report.html")
    page.unlink()
    done = cli("report")
    assert (done.code, done.out, done.err) == (0, "runs/images/report.html\n", "")
    assert page.read_text().startswith("<!doctype html>".upper()) or "<html" in page.read_text()[:200]
    named = cli("report", "runs/older")
    assert named.out == "runs/older/report.html\n"


def test_a_run_that_was_killed_early_has_a_page_all_the_same(finished, cli):
    for path in Path("runs/images").iterdir():
        if path.name not in ("config.yaml", "execution.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert cli("report").out == "runs/images/report.html\n"


@pytest.mark.parametrize(("content", "words"), [
    ("a: [b\n", "runs/images/config.yaml: is not valid YAML"), ("", "runs/images/config.yaml: holds no options"),
    ("train:\n  batchs: 3\n", "runs/images/config.yaml: unknown option 'train.batchs'"),
])
def test_a_damaged_config_is_named(finished, cli, content, words):
    Path("runs/images/config.yaml").write_text(content)
    done = cli("report")
    assert done.code == 1 and words in done.err and "Traceback" not in done.err


def test_where_there_is_no_run_the_way_to_one_is_told(cli):
    done = cli("report")
    assert done.code == 1 and "Train one with `ganvas train FOLDER_OF_IMAGES`" in done.err
    done = cli("report", "nowhere")
    assert done.code == 1 and "nowhere: no such run folder" in done.err
