import hashlib
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ganvas.data import fetch as fetching
from ganvas.data.cache import DOWNLOADED, cache_root, clean, entries
from ganvas.data.fetch import accept, fetch
from ganvas.data.public_sets import DATASETS, Dataset, PublicFile, find, how_to
from ganvas.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 4000                            # 1 MB: four chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = "https://example.org/toys"
BAD = b"<!DOCTYPE html><p>please log in"


class Server:
    """Answers on 127.0.0.1 with what `answers` holds for a path: (status, content), or content cut after some bytes."""

    def __init__(self):
        self.answers: dict[str, list[tuple]] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                script = server.answers.get(self.path, [(404, b"")])
                status, content, *cut = script.pop(0) if len(script) > 1 else script[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:cut[0]] if cut else content)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def toys(server, monkeypatch):
    """Sets of small files at the local server, in place of the real ones; no waiting between attempts."""
    monkeypatch.setattr(fetching, "FIRST_WAIT_SEC", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    one = PublicFile("toys.bin", len(CONTENT), f"sha256:{SHA256}")
    parts = tuple(PublicFile(f"part-{n}", 2, f"md5:{hashlib.md5(b'p%d' % n).hexdigest()}") for n in (1, 2))
    mirrors = (f"{server.address}/a/", f"{server.address}/b")
    hand = {"steps": ("sign in",)}
    monkeypatch.setitem(DATASETS, "toys", Dataset("toys", (one,), PAGE, "free", "--time 1min", mirrors))
    monkeypatch.setitem(DATASETS, "parts", Dataset("parts", parts, PAGE, "free", "--time 1min", mirrors))
    monkeypatch.setitem(DATASETS, "old", Dataset(
        "toys", (PublicFile("toys.bin", None, f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"),), PAGE, "free", "", mirrors))
    monkeypatch.setitem(DATASETS, "handmade", Dataset(
        "toys", (PublicFile("toys.zip", 10, "md5:" + "0" * 32),), PAGE, "research only", "", **hand))
    monkeypatch.setitem(DATASETS, "twice", Dataset("toys", (PublicFile("jpg.zip"),), PAGE, "free", "", **hand, keep="jpg"))
    return mirrors


def served(server, *answers, at="/a/toys.bin"):
    server.answers[at] = list(answers)


def left_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.name != DOWNLOADED) if folder.exists() else []


# ---------------------------------------------------------------- downloading


def test_a_set_of_one_file_comes_into_the_cache_and_its_path_is_given_back(server):
    served(server, (200, CONTENT))
    path = fetch("toys")
    assert path == cache_root() / "downloads" / "toys" / "toys.bin"
    assert path.read_bytes() == CONTENT
    assert [(entry.kind, entry.name, entry.path) for entry in entries()] == [("downloads", "toys", path.parent)]
    assert clean(kind="downloads").freed > len(CONTENT) and not path.exists()


def test_a_set_of_several_files_is_its_folder(server, tmp_path):
    for n in (1, 2):
        served(server, (200, b"p%d" % n), at=f"/a/part-{n}")
    assert fetch("parts", tmp_path / "mine") == tmp_path / "mine"
    assert left_in(tmp_path / "mine") == ["part-1", "part-2"]
    assert not (tmp_path / "mine" / DOWNLOADED).exists()      # the user's own folder is no part of the cache
    assert entries() == []


def test_a_file_that_is_there_and_right_is_not_downloaded_again(server):
    served(server, (200, CONTENT))
    assert fetch("toys") == fetch("toys")
    assert server.asked == ["/a/toys.bin"]


def test_a_file_that_is_there_and_wrong_is_replaced(server):
    served(server, (200, CONTENT))
    path = fetch("toys")
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch("toys").read_bytes() == CONTENT


def test_only_the_missing_files_are_downloaded(server):
    for n in (1, 2):
        served(server, (200, b"p%d" % n), at=f"/a/part-{n}")
    (fetch("parts") / "part-1").unlink()
    server.asked.clear()
    fetch("parts")
    assert server.asked == ["/a/part-1"]


def test_other_checksums_than_sha256_are_checked_too(server):
    served(server, (200, CONTENT + b"?"), (200, CONTENT))
    with pytest.raises(DataError, match=rf"but sha1 {hashlib.sha1(CONTENT).hexdigest()} was expected"):
        fetch("old")
    assert fetch("old").read_bytes() == CONTENT


def test_progress_rises_to_the_whole_size_and_never_beyond(server):
    served(server, (200, CONTENT))
    seen = []
    fetch("toys", progress=lambda *args: seen.append(args))
    assert {(name, total) for name, _, total in seen} == {("toys.bin", len(CONTENT))}
    counts = [done for _, done, _ in seen]
    assert counts == sorted(counts) and len(counts) >= 4 and counts[-1] == len(CONTENT)


def test_a_missing_file_is_taken_from_the_next_mirror(server):
    served(server, (200, CONTENT), at="/b/toys.bin")
    assert fetch("toys").read_bytes() == CONTENT
    assert server.asked == ["/a/toys.bin", "/b/toys.bin"]     # 404 is no reason to ask the first again


def test_a_server_in_trouble_is_asked_again(server):
    served(server, (500, b""), (503, b""), (200, CONTENT))
    assert fetch("toys").read_bytes() == CONTENT
    assert server.asked == ["/a/toys.bin"] * 3


def test_a_connection_that_is_cut_is_tried_again(server):
    served(server, (200, CONTENT, 600_000), (200, CONTENT))
    assert fetch("toys").read_bytes() == CONTENT
    assert server.asked == ["/a/toys.bin"] * 2


def test_a_file_cut_by_its_server_is_tried_again(server):
    served(server, (200, CONTENT[:1000]), (200, CONTENT))     # the announced length is that of the half file
    assert fetch("toys").read_bytes() == CONTENT


def test_connections_that_stay_cut_end_with_the_bytes_that_came_and_leave_nothing(server):
    served(server, (200, CONTENT, 600_000))
    with pytest.raises(DataError, match=r"/a/toys.bin: the connection broke after [\d,]+ of 1,024,000 bytes"):
        fetch("toys")
    assert server.asked == ["/a/toys.bin"] * 3 + ["/b/toys.bin"]
    assert left_in(cache_root()) == ["downloads", "toys"]


def test_a_wrong_checksum_names_both_and_leaves_nothing_behind(server):
    wrong = CONTENT[:-1] + b"?"
    served(server, (200, wrong))
    with pytest.raises(DataError) as raised:
        fetch("toys")
    text = str(raised.value)
    for word in ("toys.bin", f"{server.address}/a/toys.bin", hashlib.sha256(wrong).hexdigest(), SHA256, "1,024,000 bytes",
                 "HTTP 404", "nothing of it is kept", PAGE, "ganvas data fetch toys --from toys.bin"):
        assert word in text
    assert server.asked == ["/a/toys.bin", "/b/toys.bin"]
    assert left_in(cache_root()) == ["downloads", "toys"]


def test_a_login_page_is_told_from_a_damaged_file(server):
    served(server, (200, BAD * 100_000))
    with pytest.raises(DataError, match=r"a web page came instead of the file"):
        fetch("toys")


def test_a_machine_without_network_is_told_so_for_each_mirror(server):
    with pytest.raises(DataError) as raised:
        fetch("toys", base_urls=["http://127.0.0.1:9/", "http://127.0.0.1:9/again"], retries=0)
    assert str(raised.value).count("no connection") == 2
    assert "Check the network" in str(raised.value)


def test_own_mirrors_serve_even_a_set_that_needs_a_hand(server):
    served(server, (200, CONTENT), at="/mine/jpg.zip")
    assert fetch("twice", base_urls=[f"{server.address}/mine"]).read_bytes() == CONTENT


def test_an_interruption_leaves_nothing_half(server, tmp_path):
    served(server, (200, CONTENT))

    def interrupt(name, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("toys", tmp_path / "out", progress=interrupt)
    assert left_in(tmp_path / "out") == []


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file.inner: toys cannot be written there .*--out.*GANVAS_CACHE"):
        fetch("toys", tmp_path / "file" / "inner")
    assert server.asked == []


def test_a_disk_without_room_is_named_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"1.0 MB are needed, but only 0.0 MB are free"):
        fetch("toys", tmp_path / "out")
    assert server.asked == []


def test_a_disk_that_becomes_full_is_said_and_nothing_half_is_left(server, tmp_path):
    served(server, (200, CONTENT))

    def full(name, done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"out: the disk became full while toys was written; nothing half is left"):
        fetch("toys", tmp_path / "out", progress=full)
    assert left_in(tmp_path / "out") == []


def test_nothing_is_printed(server, capfd):
    served(server, (500, b""), (200, CONTENT))
    fetch("toys")
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- files that the user brings


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"picture of " + name.encode())
    return path


def test_a_set_that_needs_a_hand_says_every_step():
    with pytest.raises(DataError) as raised:
        fetch("handmade")
    assert str(raised.value) == how_to("handmade")
    for word in (PAGE, "sign in", "ganvas data fetch handmade --from FILE", "research only"):
        assert word in how_to("handmade")


def test_the_users_own_file_is_checked_and_used_where_it_lies(tmp_path):
    given = tmp_path / "toys.bin"
    given.write_bytes(CONTENT)
    assert accept("toys", given) == given
    assert entries() == []
    kept = accept("toys", given, tmp_path / "out")
    assert kept == tmp_path / "out" / "toys.bin" and kept.read_bytes() == CONTENT
    assert accept("toys", kept, tmp_path / "out") == kept     # itself: not copied over itself


def test_another_file_than_the_sets_is_refused_with_both_checksums(tmp_path):
    (tmp_path / "toys.bin").write_bytes(b"something else")
    with pytest.raises(DataError, match=rf"--from .*toys.bin: is not toys.bin: 14 bytes .* but 1,024,000 bytes .*{SHA256}"):
        accept("toys", tmp_path / "toys.bin")


def test_files_of_a_set_may_come_one_by_one_under_any_name_or_as_a_folder(tmp_path):
    first, folder = tmp_path / "renamed by the browser (1)", tmp_path / "all"
    first.write_bytes(b"p1")
    with pytest.raises(DataError, match="part-2 of parts are still missing"):
        accept("parts", first)
    folder.mkdir()
    (folder / "part-2").write_bytes(b"p2")
    path = accept("parts", folder)
    assert left_in(path) == ["part-1", "part-2"]
    assert fetch("parts") == path                             # asks no server


def test_what_is_no_file_of_the_set_is_refused(tmp_path):
    (tmp_path / "other").write_bytes(b"??")
    for given in (tmp_path / "other", tmp_path):
        with pytest.raises(DataError, match=r"--from .*part-1 or part-2"):
            accept("parts", given)
    with pytest.raises(DataError, match=r"nothing.zip: does not exist. It should be toys.zip"):
        accept("handmade", tmp_path / "nothing.zip")


def test_another_archive_of_the_same_images_is_accepted_by_hand(tmp_path):
    given = zipped(tmp_path / "archive.zip", "faces/000001.jpg")
    assert accept("handmade", given) == given
    (tmp_path / "unpacked" / "faces").mkdir(parents=True)
    (tmp_path / "unpacked" / "faces" / "1.jpg").write_bytes(b"")
    assert accept("handmade", tmp_path / "unpacked") == tmp_path / "unpacked"


@pytest.mark.parametrize(("content", "said"), [
    (BAD, "is a web page"), (b"PK\x03\x04 half a zip", r"cannot be opened as a zip .*15 bytes"),
    (None, "there are no images in this zip")])
def test_a_file_by_hand_that_is_no_archive_of_images_is_refused(tmp_path, content, said):
    given = zipped(tmp_path / "toys.zip", "readme.txt")
    if content is not None:
        given.write_bytes(content)
    with pytest.raises(DataError, match=rf"--from .*toys.zip: {said}.*{PAGE}"):
        accept("handmade", given)


def test_a_folder_by_hand_without_images_is_refused_with_the_steps(tmp_path):
    with pytest.raises(DataError, match=r"no images in this folder. handmade comes with an agreement"):
        accept("handmade", tmp_path)


def test_of_an_archive_that_holds_every_picture_twice_one_kind_is_kept(tmp_path):
    given = zipped(tmp_path / "archive.zip", "jpg/jpg/1.jpg", "jpg/jpg/2.jpg", "png/1.png", "png/2.png")
    path = accept("twice", given)
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: b"picture of " + name.encode() for name in ("jpg/jpg/1.jpg", "jpg/jpg/2.jpg")}
    assert fetch("twice") == path


def test_a_damaged_member_is_named_and_nothing_is_kept(tmp_path):
    given = zipped(tmp_path / "archive.zip", "jpg/1.jpg")
    given.write_bytes(given.read_bytes().replace(b"picture of", b"pixture of"))
    with pytest.raises(DataError, match=r"archive.zip: is damaged .*jpg/1.jpg"):
        accept("twice", given)
    assert left_in(cache_root()) == ["downloads", "twice"]


# ---------------------------------------------------------------- the table of sets


def test_an_unknown_name_lists_the_close_and_the_known():
    with pytest.raises(ConfigError) as raised:
        find("MNSIT")
    assert "'MNSIT'" in str(raised.value) and "Did you mean mnist" in str(raised.value)
    assert all(name in str(raised.value) for name in DATASETS)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "svhn", "d2l-pokemon", "celeba", "kaggle-pokemon"])
def test_every_set_has_a_page_a_licence_and_checksums_or_steps(name):
    dataset = find(name)
    assert dataset.page.startswith("http") and dataset.licence and dataset.title.isascii()
    lengths = {"md5": 32, "sha1": 40, "sha256": 64}
    for file in dataset.files:
        kind, _, digest = (file.checksum or "").partition(":")
        assert dataset.by_hand or (len(digest) == lengths[kind] and set(digest) <= set("0123456789abcdef"))
    assert bool(dataset.mirrors) != bool(dataset.steps)
    assert dataset.by_hand or len(dataset.mirrors) >= 2


def test_importing_loads_no_network_library():
    code = "import sys, ganvas.data.fetch; print(*{'pooch', 'requests', 'urllib3', 'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
