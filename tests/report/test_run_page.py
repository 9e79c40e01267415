"""The run's report shows what the folder holds, says what is missing and how to make it, and cannot be broken by names."""

import base64
import io
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganvas.config import from_yaml, make_config, to_yaml
from ganvas.presets import load_preset
from ganvas.report.grid import save_png
from ganvas.report.run_page import write_report
from ganvas.request import resolve
from ganvas.run_folder import RunFolder

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "bad\udcff.png", "line\nbreak\x00",
           "</script>")
SECTIONS = ["Samples", "Health", "Figures", "Copies", "Curves", "Data", "Settings", "Make it again", "Files of the run"]
COLLAPSE = {"name": "mode collapse", "severity": "problem", "since": 2000, "evidence": "diversity 0.1 of 1.0",
            "advice": "a lower --lr"}


class Page(HTMLParser):
    """What a browser would find; fails where tags do not nest."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.code = "", [""]
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "path"):
            self.open.append(tag)
            self.code += [""] if tag in ("code", "pre") else []

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open or "script" in self.open:
            return
        self.text += data
        if {"code", "pre"} & set(self.open):
            self.code[-1] += data

    def found(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [its for name, its in self.tags if name == tag and all(its.get(key) == value for key, value in attributes.items())]

    def section(self, name: str) -> str:
        """The text from one heading to the next."""
        return self.source.split(f'<section id="{name}">')[1].split("</section>")[0]


def figure(**values: Any) -> dict[str, Any]:
    return {"metric": "kid", "label": "KID", "value": 0.0213, "low": 0.019, "high": 0.0241, "floor": 0.0012, "floor_low": 0.0,
            "floor_high": 0.002, "error": None, "better": "lower", "n": 1000, "reals": 898, "split": "train",
            "extractor": "random", "preprocessing": "resized to 32x32", "relative_only": True, "note": "a remark"} | values


def evaluation(**values: Any) -> dict[str, Any]:
    copies = {"rate": 0.011, "low": 0.006, "high": 0.019, "limit": 0.03, "calibration": "held-out images",
              "calibration_rate": 0.01, "n": 1000, "text": "no sign of copying: as near as new images",
              "data_copying": {"c_t": -0.4, "text": "a fair distance"},
              "pairs": [{"sample": 17, "image": "digits[33]", "ratio": 0.41, "mirrored": True}]}
    return {"version": 1, "subject": "run", "checkpoint": 2000, "chosen": "best", "averaged": True, "source": "digits",
            "figures": [figure()], "copies": copies, "notes": ["a note"], "seed": 0} | values


def grid(path: Path, seed: int) -> None:
    save_png(path, np.random.default_rng(seed).integers(0, 256, (34, 34, 1)).astype(np.uint8), 4)


def made_run(path: Path, **options: Any) -> RunFolder:
    """A whole run, made by hand."""
    folder = RunFolder(path)
    folder.samples.mkdir(parents=True)
    folder.config.write_text(to_yaml(make_config(load_preset("digits-16").values, options)), encoding="utf-8")
    folder.execution.write_text(json.dumps({"environment": {"device": "cpu", "torch": "2.15.0"}, "images": 1797,
                                            "holdout": 90, "time_sec": 60.0,
                                            "why": {"length": "length 4 kimg: what --time makes"}}))
    rows = [{"nimg": 100 * i, "epoch": i / 18, "step": i, "Loss_D": 1.0, "Loss_G": 2.0, "D(x)": 0.6, "D(G(z))_before": 0.4,
             "D(G(z))_after": 0.3, "logit_real": 0.5, "logit_fake": -0.5, "grad_D": 1.0, "grad_G": 2.0, "elapsed_sec": float(i)}
            for i in range(1, 41)]
    folder.stats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = [{"nimg": nimg, "extractor": "random", "n": 512, "kid": kid, "kid_error": 0.01, "kid_floor": 0.002,
                 "diversity": 0.9, "diversity_real": 1.0, "copies": 0.01, "copies_limit": 0.05, "logit_train": 1.0,
                 "logit_holdout": None}
                for nimg, kid in ((1000, 0.3), (2000, 0.1), (3000, 0.2), (4000, 0.25))]
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in measured))
    folder.best.write_text(json.dumps({"version": 1, "nimg": 2000, "metric": "kid", "value": 0.1, "extractor": "random"}))
    folder.sheet.write_text(json.dumps({"version": 1, "rows": [["images", "1,797 readable"], ["sizes", "8x8"]]}))
    folder.evaluation.write_text(json.dumps(evaluation()))
    for nimg in range(0, 4001, 1000):
        grid(folder.grid(nimg), nimg)
    grid(folder.reals_grid, 7)
    grid(folder.neighbours, 8)
    folder.data_page.write_text("a page")
    return folder


def page_of(folder: RunFolder, *diagnoses: dict[str, Any]) -> Page:
    path = write_report(folder, diagnoses=list(diagnoses))
    assert path == folder.report
    assert path.stat().st_size < 8_000_000
    return Page(path)


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


def test_a_whole_run_has_every_section_with_its_content_and_nothing_missing(run):
    page = page_of(run, COLLAPSE)
    assert [name for name in SECTIONS if f"<h2>{name}</h2>" not in page.source] == []
    assert 'class="missing"' not in page.source
    for text in ("Something is wrong: mode collapse.", "diversity 0.1 of 1.0", "0.0213", "0.0190 to 0.0241", "0.00120",
                 "1,000 samples", "898 real images (train)", "relative only", "resized to 32x32", "a remark", "a note",
                 "No sign of copying: as near as new images.", "0.6% to 1.9%", "a fair distance", "digits[33]",
                 "mirrored", "1,797 readable",
                 "what --time makes", "2.15.0", "40 s of --time 1 min", "digits: 1,797 as 16x16, 1 channel, 90 held out",
                 "2.0 kimg of 4.0 kimg"):
        assert text in page.text, text


def test_nothing_leaves_the_page_and_it_says_so_to_the_browser(run):
    page = page_of(run)
    policy, = page.found("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert "http" not in page.source.replace("http-equiv", "")
    assert all(image["src"].startswith("data:image/") for image in page.found("img"))
    assert all(image["alt"] for image in page.found("img"))
    links = [link["href"] for link in page.found("a")]
    assert all(link.startswith("#") or (run.path / link).is_file() for link in links)
    assert "data.html" in links
    assert not page.found("link") and not page.found("iframe") and not page.found("object")
    assert all(its.get("src", "data:").startswith("data:") for _, its in page.tags)
    assert not re.search(r"@import|url\(", page.source)


def test_the_slider_starts_at_the_best_and_without_scripts_best_and_newest_are_shown(run):
    page = page_of(run)
    slider, = page.found("input", type="range")
    assert (slider["max"], slider["value"]) == ("4", "2")
    kept = [its["class"] == "frame kept" for its in page.found("figure") if "frame" in (its.get("class") or "").split()]
    assert kept == [False, False, True, False, True]
    assert "2.0 kimg, epoch 1.1, KID 0.100" in page.text


def test_curves_mark_the_best_at_its_place_and_name_their_values(run):
    page = page_of(run)
    titles = [its["aria-label"].split(".")[0] for its in page.found("svg")]
    assert titles == ["KID", "Copies", "Diversity", "D on what it knows", "Losses", "What D believes", "D's logits",
                      "Gradient norms"]
    marks = re.findall(r'class="bestline" d="M([\d.]+) 0V300"', page.source)
    assert len(marks) == len(titles) and all(490 < float(mark) < 500 for mark in marks)
    points = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page.source)]
    assert points[0]["lines"] == [["KID", 1, ["0.300", "0.100", "0.200", "0.250"]]]
    assert points[4]["x"][1].startswith("200 images, epoch 0.111")


def test_d_s_logits_are_shown_as_what_they_are_where_the_loss_makes_them_no_probabilities(run):
    assert "0 is no border" not in page_of(run).text
    config = from_yaml(run.config.read_text(), "config.yaml")
    run.config.write_text(to_yaml(make_config(config, {"train.loss": "relativistic"})))
    page = page_of(run)
    titles = [its["aria-label"].split(".")[0] for its in page.found("svg")]
    assert "What D believes" not in titles and "D's logits" in titles
    assert "no probabilities and 0 is no border" in page.text and "Probability of being real" not in page.text


def test_measurements_of_another_extractor_are_not_drawn_with_the_last_ones(run):
    row = {"nimg": 500, "extractor": "inception", "kid": 9.0}
    run.metrics.write_text(json.dumps(row) + "\n" + run.metrics.read_text())
    assert "9" not in re.search(r"\[\[\"KID\".*?\]\]\]", page_of(run).source)[0]


def test_an_evaluation_of_an_older_checkpoint_says_so_with_the_command_and_is_not_called_the_best(run):
    assert "Of the best checkpoint at 2.0 kimg" in page_of(run).text
    assert "is measured by" not in page_of(run).text
    run.best.write_text(json.dumps({"nimg": 3000, "metric": "kid", "value": 0.05}))
    page = page_of(run)
    told = "the checkpoint at 2.0 kimg, which was the best then; the best is now at 3.0 kimg."
    assert page.text.count(told) == 3                       # at the top, at the figures, at the copies
    assert page.code.count(f"ganvas evaluate {run.path}") == 3
    assert "Of the best checkpoint at 2.0 kimg" not in page.text
    assert 'class="verdict good"' not in page.source


def test_an_evaluation_of_the_last_checkpoint_is_not_old_while_that_is_the_last(run):
    run.checkpoints.mkdir()
    run.evaluation.write_text(json.dumps(evaluation(checkpoint=4000, chosen="last")))
    for nimg, text in ((4000, "Of the last checkpoint at 4.0 kimg"), (5000, "which was the last then")):
        run.checkpoint(nimg).touch()
        assert text in page_of(run).text


def test_figures_of_few_samples_are_not_called_as_good_as_real_images(run):
    near = figure(value=0.001, low=0.0005, high=0.0024)
    run.evaluation.write_text(json.dumps(evaluation(figures=[near])))
    page = page_of(run)
    assert "as real images" in page.section("figures") and 'class="verdict good"' in page.source
    run.evaluation.write_text(json.dumps(evaluation(figures=[near | {"n": 68}])))
    page = page_of(run)
    assert "as real images" not in page.section("figures") and 'class="verdict open"' in page.source
    assert "too few samples to tell it from real images: n = 68." in page.text


def test_copies_of_the_training_say_among_how_many_images_they_were_looked_for(run):
    assert "looked for among" not in page_of(run).text
    rows = [json.loads(line) | {"copies_among": 10_000} for line in run.metrics.read_text().splitlines()]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(run)
    assert "near to a training image, looked for among 10,000 training images." in page.section("curves")
    assert re.search(r"training images they were looked for among</th><td[^>]*>10,000<", page.section("figures"))


def test_an_empty_folder_makes_a_page_that_says_what_is_missing_and_what_makes_it(tmp_path):
    (tmp_path / "run").mkdir()
    page = page_of(RunFolder(tmp_path / "run"))
    assert "Nothing has been trained yet." in page.text
    assert [name for name in SECTIONS if f"<h2>{name}</h2>" not in page.source] == []
    for section, command in (("samples", "ganvas train SOURCE"), ("health", "ganvas train"), ("figures", "ganvas evaluate"),
                             ("copies", "ganvas evaluate"), ("curves", "ganvas train"), ("data", "ganvas data inspect"),
                             ("settings", "ganvas train"), ("again", "ganvas doctor")):
        assert 'class="missing"' in page.section(section), section
        assert f"<code>{command}" in page.section(section), section


TORN = {"best": "best.json", "evaluation": "evaluation.json", "sheet": "data.json", "execution": "execution.json",
        "config": "config.yaml"}


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "rows"', b"\xff\xfe\x00", b"[1, 2]", b"null",
                                     b'{"nimg": "x", "figures": 3, "rows": [[1]], "environment": []}'])
def test_torn_files_are_named_and_the_rest_is_shown(run, content):
    for part in TORN:
        getattr(run, part).write_bytes(content)
    for path in (run.stats, run.metrics):
        path.write_bytes(path.read_bytes() + b'{"nimg": 5000, "Loss_D"')
    for path in (run.neighbours, run.reals_grid, run.grid(4000)):
        path.write_bytes(path.read_bytes()[:90])
    page = page_of(run)
    for name in TORN.values():
        assert re.search(rf"{name} (is damaged|cannot be read)", page.text), name
    assert "neighbours.png is damaged" in page.text
    assert "Losses" in page.text and "4.0 kimg" in page.text
    assert len(page.found("img")) == 4                      # the grids that can be read


@pytest.mark.parametrize("part", ["metrics", "best", "evaluation", "sheet", "execution", "config", "stats", "neighbours",
                                  "reals_grid", "data_page"])
def test_each_part_may_be_missing(run, part):
    getattr(run, part).unlink()
    page = page_of(run)
    assert [name for name in SECTIONS if f"<h2>{name}</h2>" not in page.source] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_the_users_becomes_markup(tmp_path, name):
    run = made_run(tmp_path / "run")
    pairs = [{"sample": 1, "image": name, "ratio": 1.0, "mirrored": False}]
    copies = {"text": name, "calibration": name, "pairs": pairs}
    figures = [figure(label=name, note=name, extractor=name, preprocessing=name, split=name)]
    run.evaluation.write_text(json.dumps(evaluation(source=name, notes=[name], copies=copies, figures=figures)))
    run.sheet.write_text(json.dumps({"rows": [[name, name]]}))
    run.execution.write_text(json.dumps({"environment": {name: name}, "why": {"a": name}}))
    run.config.write_text(to_yaml(make_config(load_preset("digits-16").values, {"data.source": name})), encoding="utf-8")
    page = page_of(run, {"name": name, "severity": "warning", "since": None, "evidence": name, "advice": name})
    assert page.source.count("<script") == len(page.found("svg")) + 1
    assert "alert(1)" not in "".join(str(its) for _, its in page.tags)
    assert not page.found("img", src="x")
    assert "49" not in page.section("health")
    assert "\x00" not in page.source


def test_a_folder_with_bytes_that_are_no_unicode_makes_a_page_and_a_command_without_its_name(tmp_path):
    run = made_run(tmp_path / "r\udcffn")
    page = page_of(run)
    assert "r\\udcffn" in page.text
    assert "ganvas train --config . --out ../again" in page.code


def test_the_command_makes_a_run_with_the_same_options(tmp_path, monkeypatch):
    run = made_run(tmp_path / "a run's", **{"train.lr": 1e-3, "train.betas": [0.9, 0.99], "length": "3 kimg"})
    command = next(text for text in page_of(run).code if text.startswith("ganvas train"))
    monkeypatch.chdir(tmp_path)
    program, verb, *rest = shlex.split(command)
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    assert (program, verb, set(options)) == ("ganvas", "train", {"--config", "--out"})
    assert options["--out"] != str(run.path)
    again = resolve(None, config=options["--config"]).config
    assert again == make_config(from_yaml(run.config.read_text(encoding="utf-8"), "config.yaml"))


@pytest.mark.parametrize(("options", "text"), [
    ({"network.family": "custom"}, "generator= and discriminator="), ({"train.loss": "custom"}, "loss="),
    ({"data.source": "the dataset CIFAR10"}, "the dataset CIFAR10 of a Python program")])
def test_a_run_that_no_command_can_repeat_says_what_it_needs(tmp_path, options, text):
    page = page_of(made_run(tmp_path / "run", **options))
    assert text in page.section("again")
    assert "<pre>ganvas train" not in page.section("again")


def test_settings_that_differ_come_with_their_usual_value(tmp_path):
    settings = page_of(made_run(tmp_path / "run", **{"train.lr": 1e-3, "execution.threads": 7})).section("settings")
    differing, everything = settings.split("<summary>All options</summary>")
    assert "1 option differs from digits-16" in differing
    assert re.search(r"train\.lr</code>.*?>0\.001<.*?>0\.0005<", differing)
    assert "execution.threads" not in differing and "execution.threads" in everything
    assert "All as digits-16 has it." in page_of(made_run(tmp_path / "same")).section("settings")
    assert "no preset of this version" in page_of(made_run(tmp_path / "other", preset="gone-64")).section("settings")


def test_an_unfinished_run_says_so(tmp_path):
    assert "6 kimg: not finished yet" in page_of(made_run(tmp_path / "run", length="6 kimg")).text
    assert "not finished" not in page_of(made_run(tmp_path / "done", length="4 kimg")).text


def test_findings_are_told_by_name_severity_since_when_and_with_what_helps(run):
    page = page_of(run, COLLAPSE, COLLAPSE | {"name": "noise", "severity": "warning"})
    assert [its["class"] for its in page.found("li") if its.get("class") in ("bad", "mixed")] == ["bad", "mixed"]
    assert "since 2.0 kimg" in page.text
    assert "--lr" in page.code
    assert "Nothing stands out in 40 rows of statistics and 4 measurements." in page_of(run).text


def test_a_long_run_of_large_noise_stays_under_8_megabytes(tmp_path):
    run = made_run(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 1100, 3)).astype(np.uint8)
    save_png(run.grid(0), pixels[:500, :500])
    for nimg in range(500, 40_000, 500):
        run.grid(nimg).write_bytes(run.grid(0).read_bytes())
    for path in (run.neighbours, run.reals_grid):
        save_png(path, pixels)
    rows = [{"nimg": 10 * i, "Loss_D": float(np.sin(i)), "grad_D": 1.0} for i in range(4000)]
    run.stats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(run)
    assert 2_000_000 < len(page.source) < 8_000_000
    assert "of 80 pictures are shown" in page.text


def test_pictures_are_the_runs_own(run):
    page = page_of(run)
    for path, alt in ((run.reals_grid, "real images"), (run.neighbours, "nearest"), (run.grid(3000), "3.0 kimg")):
        uri = next(image["src"] for image in page.found("img") if alt in image["alt"])
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
        np.testing.assert_array_equal(shown, np.asarray(Image.open(path))[::4, ::4])


PROBE = """<script>
const figures = [...document.querySelectorAll(".frame")];
const shown = () => figures.flatMap((frame, i) => getComputedStyle(frame).display === "none" ? [] : [i]);
const slider = document.querySelector("#controls input"), canvas = document.querySelector(".canvas"), told = [shown()];
const legend = () => canvas.parentElement.querySelector(".legend").textContent.replace(/\\s+/g, " ");
slider.value = 0; slider.dispatchEvent(new Event("input")); told.push(shown(), slider.getAttribute("aria-valuetext"));
document.querySelectorAll("#controls button")[2].click(); told.push(shown());
canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "Home"})); told.push(legend());
canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"})); told.push(legend());
canvas.dispatchEvent(new PointerEvent("pointerleave")); told.push(legend());
told.push([innerWidth, document.documentElement.scrollWidth - document.documentElement.clientWidth]);
parent.postMessage(JSON.stringify(told), "*");
</script></body>"""
# A window cannot be as narrow as a phone, a frame can.
PHONE = """<iframe src="page.html" style="width:360px;height:640px;border:0"></iframe><pre></pre>
<script>
addEventListener("message", (event) => { document.querySelector("pre").textContent = "TOLD" + event.data + "END"; });
</script>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium here to open the page in")
def test_in_a_browser_slider_and_curves_answer_and_nothing_is_wider_than_a_phone(run, tmp_path):
    (tmp_path / "page.html").write_text(page_of(run, COLLAPSE).source.replace("</body>", PROBE), encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=3000", "--dump-dom", (tmp_path / "phone.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True)
    told = re.search("TOLD(.*)END", done.stdout.split("<script>")[0])
    assert told, done.stdout
    start, first, caption, newest, at_home, at_next, left, width = json.loads(told[1])
    assert (start, first, newest) == ([2], [0], [4])
    assert caption == "before training"
    assert "at 1,000 images" in at_home and "KID 0.300" in at_home
    assert "at 2,000 images" in at_next and "KID 0.100" in at_next
    assert "last row" in left and "KID 0.250" in left
    assert width == [360, 0]
