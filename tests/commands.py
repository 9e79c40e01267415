"""Commands in a fresh interpreter, one for all of them: importing PyTorch takes longer than what they do."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

SCRIPT = """
import json, os, sys
from ganvas.cli.main import main
from ganvas.report import animation
animation.write_mp4 = lambda path, frames: 0       # encoding takes longer than all else
for args in json.loads(sys.argv[1]):
    sys.argv, code = ["ganvas", *args], 0
    try:
        main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.write(stream.fileno(), b"%c%d%c" % (30, code, 30))
"""


class Done(NamedTuple):
    """One command that ended."""

    code: int
    out: str
    err: str


class AllDone(NamedTuple):
    """Commands that ended, and the most memory that their process held; 0 where the system does not tell."""

    commands: list[Done]
    megabytes: int


def run_commands(folder: Path, *commands: tuple[str, ...], encoding: str = "utf-8", timeout_sec: float = 120, **env: str
                 ) -> AllDone:
    """`ganvas ARGS` in `folder` for each of `commands`. Raises where one hangs, or ends in a traceback."""
    out, err, megabytes, give_up_at = folder / "out.txt", folder / "err.txt", 0, time.monotonic() + timeout_sec
    everything = os.environ | {"PYTHONIOENCODING": encoding} | env
    told = json.dumps(commands, ensure_ascii=False)        # so that names arrive as in any command line
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, told], cwd=folder, env=everything, stdout=to_out, stderr=to_err)
    while process.poll() is None:
        megabytes = max(megabytes, _peak_megabytes(process.pid))
        if time.monotonic() > give_up_at:
            process.kill()
            raise AssertionError(f"{commands} hang: {err.read_bytes()!r}")
        time.sleep(0.005)
    outs, errs = (path.read_bytes().decode(encoding).split("\x1e") for path in (out, err))
    assert process.returncode == 0, errs[-1]
    assert "Traceback" not in "".join(errs)
    return AllDone([Done(int(code), *texts) for code, *texts in zip(outs[1::2], outs[::2], errs[::2], strict=False)], megabytes)


def _peak_megabytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) // 1024 if "VmHWM:" in status else 0
