"""`ganvas doctor`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganvas.doctor import Finding


def doctor(as_json: Annotated[bool, typer.Option("--json", help="for another program to read")] = False) -> None:
    """Examine Python, PyTorch, devices, threads, memory and disks: each fault with the line that mends it."""
    import json
    import shutil
    from dataclasses import asdict

    from ganvas.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps({"version": 1, "findings": [asdict(finding) for finding in findings]}))
    else:
        print(table(findings, shutil.get_terminal_size((130, 40)).columns))
        print(f"\n{summary(findings)}")
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def table(findings: "list[Finding]", width: int) -> str:
    """State, name and text of each finding in columns, lines of `width` characters; the remedy in a line of its own."""
    import textwrap

    state_width = max((len(finding.state) for finding in findings), default=0)
    name_width = max((len(finding.name) for finding in findings), default=0)
    margin = " " * (state_width + name_width + 4)
    lines = []
    for finding in findings:
        state = "FAULT" if finding.state == "fault" else finding.state
        head = f"{state:<{state_width}}  {finding.name:<{name_width}}  "
        texts = [(head, finding.text)] + ([(margin + "-> ", finding.remedy)] if finding.remedy else [])
        for start, text in texts:
            # Words are never cut: paths and commands are there to be copied.
            lines += textwrap.wrap(text, max(width, len(margin) + 40), initial_indent=start, subsequent_indent=" " * len(start),
                                   break_long_words=False, break_on_hyphens=False) or [start.rstrip()]
    return "\n".join(lines)


def summary(findings: "list[Finding]") -> str:
    """How many faults and notes there are, in a sentence."""
    faults, notes = (sum(finding.state == state for finding in findings) for state in ("fault", "note"))
    counts = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in ((faults, "fault"), (notes, "note")) if count]
    return f"{' and '.join(counts)}; each with what mends it after ->" if counts else "All is well."
