"""`ganvas presets`."""

import re
from typing import Annotated

import typer

PLAIN = "examples/plain"
CHOSEN = "data.", "network.", "plan.", "train.", "augment.", "length", "output."      # where a preset says nothing of it


def presets(
    name: Annotated[str | None, typer.Argument(help="the preset to show in full", show_default=False)] = None,
) -> None:
    """List the presets, or show one: where it is from, what is choice, and every option."""
    from rich.console import Console
    from rich.table import Table

    from ganvas.config import make_config
    from ganvas.presets import load_preset, preset_names
    from ganvas.recipe import table

    console = Console(highlight=False)
    if name is None:
        listing = Table("preset", "what it is", box=None)
        for known in preset_names():
            listing.add_row(known, load_preset(known).title)
        console.print(listing)
        console.print("\nganvas presets NAME shows one in full; ganvas train FOLDER --preset NAME uses it.", markup=False)
        return
    preset = load_preset(name)
    header = re.sub(r"\n {2,}(?!- )", " ", preset.header)           # the terminal has a width of its own
    console.print(f"{name}\n\n{header}\n", markup=False)
    if preset.is_classic:
        console.print(f"As one plain PyTorch script: {PLAIN}/{name}.py in Ganvas's repository.\n", markup=False)
    options = Table("option", "value", "meaning", box=None)
    for option, value, meaning in table(make_config(preset.values)):
        is_open = not preset.is_complete and option not in preset.values and option.startswith(CHOSEN)
        if not option.startswith(("data.source", "execution.")):        # the user's images and machine
            options.add_row(option, "from the images" if is_open else value, meaning)
    console.print(options)
