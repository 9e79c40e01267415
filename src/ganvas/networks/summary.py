"""What a network is made of, read from the modules themselves."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class LayerRow(NamedTuple):
    """One layer with its own output shape (without the batch) and number of parameters."""

    name: str
    layer: str
    output: tuple[int, ...]
    parameters: int


@torch.no_grad()
def summarise(network: nn.Module, example: Tensor) -> list[LayerRow]:
    """A row for each layer in the order in which it runs on `example`; buffers and training mode are left as they were.

    A layer that runs twice has its parameters in its first row. What a user's network holds outside its layers comes last.
    """
    rows: list[LayerRow] = []
    counted: set[nn.Parameter] = set()
    hooks = []
    for name, module in network.named_modules():
        if not list(module.children()) and module is not network:
            def note(layer: nn.Module, _: object, output: object, name: str = name) -> None:
                new = set(layer.parameters()) - counted
                counted.update(new)
                shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()      # a user's layer may give a tuple
                rows.append(LayerRow(name, _describe(layer), shape, sum(p.numel() for p in new)))
            hooks.append(module.register_forward_hook(note))
    was_training = network.training
    try:
        network.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)
    if others := sum(p.numel() for p in set(network.parameters()) - counted):
        rows.append(LayerRow("", "parameters outside layers", (), others))
    return rows


def _describe(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        kernel = "×".join(str(k) for k in layer.kernel_size)
        padding = f" p{layer.padding[0]}" if layer.padding != (0, 0) else ""
        bias = " bias" if layer.bias is not None else ""
        return f"{kind} {layer.in_channels}→{layer.out_channels} k{kernel} s{layer.stride[0]}{padding}{bias}"
    if isinstance(layer, nn.Linear):
        return f"{kind} {layer.in_features}→{layer.out_features}{' bias' if layer.bias is not None else ''}"
    if isinstance(layer, nn.LeakyReLU):
        return f"{kind} {layer.negative_slope:g}"
    return kind


def as_text(title: str, given: tuple[int, ...], rows: list[LayerRow]) -> str:
    """A table of the layers, for a terminal or a text file; `given` is the shape of what goes in."""
    def shape(sizes: tuple[int, ...]) -> str:
        return " × ".join(map(str, sizes))
    widest = max((len(row.layer) for row in rows), default=0)
    lines = [f"{title}: {sum(row.parameters for row in rows):,} parameters, from {shape(given)}"]
    lines += [f"  {row.layer:<{widest}}  {shape(row.output):<14}  {row.parameters or '':>12,}".rstrip() if row.parameters
              else f"  {row.layer:<{widest}}  {shape(row.output)}" for row in rows]
    return "\n".join(lines)
