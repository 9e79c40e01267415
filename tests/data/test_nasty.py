"""A folder of everything that goes wrong is inspected and trained on: each file is read rightly, or named with its reason."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import nasty
from commands import run_commands
from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.source_base import printable
from ganvas.data.sources import open_source
from ganvas.run_folder import RunFolder

TRUE_SIZE = ("--size", "16", "--channels", "4", "--transparency", "keep", "--fit", "crop", "--native", "off", "--holdout", "0")
TINY = ("--steps", "1", "--batch", "8", "--device", "cpu", "--threads", "1", "--mirror", "off", "--set", "network.g_channels=4",
        "--set", "network.d_channels=4", "--set", "output.grid_n=4")
MOST_MEGABYTES = 1024


class Nasty(NamedTuple):
    """Where the folder lies, and its files."""

    home: Path
    cases: list[nasty.Case]

    def named(self, kind, prefix="nasty/"):
        """{name as it is shown: case} of those that are "pixels", "unreadable" or "ignored"."""
        return {printable(prefix + case.name): case for case in self.cases if case.kind == kind}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return Nasty(home, nasty.make(home / "nasty"))


@pytest.fixture(scope="module")
def inspection(everything):
    return run_commands(everything.home, ("data", "inspect", "nasty", "--json", *TRUE_SIZE),
                        GANVAS_CACHE=str(everything.home / "cache"))


def assert_told(found, cases):
    """found: [(name, reason)]. Each case is among them, with its reason, and nothing else is."""
    reasons = dict(found)
    assert len(reasons) == len(found)
    assert set(reasons) == set(cases)
    wrong = [f"{name}: {reasons[name]}" for name, case in cases.items()
             if not nasty.matches(case.unreadable or case.ignored, reasons[name])]
    assert not wrong


def assert_right(pack, cases, expected=lambda pixels: pixels):
    """The pack holds each case as it should look, and nothing else."""
    assert set(pack.names) == set(cases)
    images = pack.read(range(len(pack))).transpose(0, 2, 3, 1).astype(int)
    off = {name: int(np.abs(image - expected(cases[name].pixels)).max())
           for name, image in zip(pack.names, images, strict=True)}
    assert not {name: by for name, by in off.items() if by > cases[name].near}


def on_white(pixels):
    alpha = pixels[..., 3:].astype(int)
    return (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255


def test_the_folder_holds_more_than_forty_kinds_of_nastiness(everything):
    assert len(everything.named("unreadable")) >= 30
    assert len(everything.named("ignored")) >= 12
    assert len(everything.named("pixels")) >= 80


def test_inspecting_names_every_bad_file_with_its_reason_within_a_gigabyte(everything, inspection):
    assert inspection.megabytes < MOST_MEGABYTES
    (inspected,) = inspection.commands
    assert inspected.code == 0, inspected.err
    sheet = json.loads(inspected.out)
    assert_told(sheet["unreadable"], everything.named("unreadable"))
    assert_told(sheet["ignored"], everything.named("ignored"))
    assert sheet["images"] == len(everything.named("pixels"))
    assert sheet["sizes"]["20000x2"] == 2
    assert sheet["turned"] == 14
    assert sheet["animated"] == 5


def test_every_other_file_has_the_right_pixels(everything, inspection):
    assert inspection.commands[0].code == 0
    pack = build_pack(open_source(everything.home / "nasty"), Layout(16, 16, 4, "crop", "keep"), skip_bad=True,
                      cache_dir=everything.home / "cache" / "packs")
    assert pack.from_cache                                 # it is the one that the command made
    assert_right(pack, everything.named("pixels"))


def test_training_on_it_is_refused_with_the_first_bad_ones_and_trains_without_them(everything, inspection):
    assert inspection.commands[0].code == 0                # its pack is in the cache
    train = ("train", "nasty", *TRUE_SIZE, *TINY)
    refused, trained = run_commands(everything.home, train, (*train, "--skip-bad"),
                                    GANVAS_CACHE=str(everything.home / "cache")).commands
    bad = everything.named("unreadable")
    assert refused.code == 1
    total = len(bad) + len(everything.named("pixels"))
    assert f"nasty: {len(bad)} of {total} images cannot be read." in refused.err
    listed = [line.strip() for line in refused.err.splitlines() if line.startswith("  nasty/")]
    assert len(listed) == 10
    for line in listed:
        name, reason = line.split(": ", 1)
        assert nasty.matches(bad[name].unreadable, reason), line
    assert "--skip-bad" in refused.err

    assert trained.code == 0, trained.err
    left_out = [line.removeprefix("left out: ") for line in trained.out.splitlines() if line.startswith("left out: ")]
    assert {line.split(": ", 1)[0] for line in left_out} == set(bad)
    run = RunFolder(everything.home / "runs" / "nasty")
    assert run.list_checkpoints()
    assert all(path.is_file() for path in (run.images, run.data_page))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_same_files_in_an_archive_are_the_same_images(everything, tmp_path, kind):
    inside = Nasty(everything.home, [case for case in everything.cases
                                     if case.content is not None and case.name != "8000x8000.png"])
    path = tmp_path / f"nasty.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for case in inside.cases:
                archive.writestr(case.name, case.content)
    else:
        with tarfile.open(path, "w") as archive:
            for case in inside.cases:
                member = tarfile.TarInfo(case.name)
                member.size = len(case.content)
                archive.addfile(member, io.BytesIO(case.content))
    source = open_source(path)
    assert_told(source.ignored, inside.named("ignored", f"nasty.{kind}!"))
    layout = Layout(16, 16, 3, "crop", "white") if kind == "zip" else Layout(16, 16, 4, "crop", "keep")
    pack = build_pack(source, layout, skip_bad=True, cache_dir=tmp_path / "packs")
    assert_told(pack.skipped, inside.named("unreadable", f"nasty.{kind}!"))
    assert_right(pack, inside.named("pixels", f"nasty.{kind}!"), on_white if kind == "zip" else lambda pixels: pixels)
    source.close()
