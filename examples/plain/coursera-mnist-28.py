"""coursera-mnist-28: a guided project's MNIST DCGAN in one plain PyTorch script.

Source: the project's description, which fixes z 64, 28x28 grey images turned by up to 20 degrees, batch norm with ReLU or
leaky ReLU, D's flatten + linear to one logit, Adam 2e-4 (.5, .99), and BCE on logits.
What sets it apart: batch norm's weight is drawn around zero, N(0, .02), not around one, so every layer starts nearly shut.
Choice, where the description is silent (as this lineage is remembered): layer sizes, initialisation, batch 128, 20 epochs,
D's loss halved, fresh z for G; the window of 500 steps; pictures in train mode from fresh z; leaky slope .2.
Deviation: the original leaves reals in [0, 1] though G ends in tanh; here reals are mapped to [-1, 1], so both sides match.
A last batch of one image is left out: D's last batch norm sees 1x1 maps, and one value has no variance.
Parameters: G 747,841, D 64,545.

    python coursera-mnist-28.py mnist/ --out pictures        (mnist/ holds train-images-idx3-ubyte.gz)
"""

import argparse
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.utils import save_image

Z_DIM, IMAGE_SIZE, CHANNELS = 64, 28, 1
BATCH, EPOCHS = 128, 20
PICTURES, WINDOW = 25, 500
IMAGES_FILE = "train-images-idx3-ubyte.gz"


def up_block(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, kernel, stride), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def down_block(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride=2), nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2)
    )


class Generator(nn.Module):
    """z (N, 64) -> images (N, C, 28, 28) in [-1, 1]."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.layers = nn.Sequential(                          # (N, 64, 1, 1)
            up_block(Z_DIM, 256, kernel=3, stride=2),         # (N, 256, 3, 3)
            up_block(256, 128, kernel=4, stride=1),           # (N, 128, 6, 6)
            up_block(128, 64, kernel=3, stride=2),            # (N, 64, 13, 13)
            nn.ConvTranspose2d(64, channels, 4, stride=2),    # (N, C, 28, 28)
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layers(z.view(-1, Z_DIM, 1, 1))
        return images


class Discriminator(nn.Module):
    """Images (N, C, 28, 28) -> logits (N,), positive = looks real."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.layers = nn.Sequential(                # (N, C, 28, 28)
            down_block(channels, 16, kernel=3),     # (N, 16, 13, 13)
            down_block(16, 32, kernel=5),           # (N, 32, 5, 5)
            down_block(32, 64, kernel=5),           # (N, 64, 1, 1)
            nn.Flatten(),                           # (N, 64)
            nn.Linear(64, 1),                       # (N, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x).squeeze(1)
        return logits


def make_networks(channels: int = CHANNELS) -> tuple[Generator, Discriminator]:
    G, D = Generator(channels), Discriminator(channels)
    for module in (*G.modules(), *D.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)           # biases stay as PyTorch makes them
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0, 0.02)           # mean 0, as this lineage has it
            nn.init.zeros_(module.bias)
    return G, D


def make_optimizers(G: nn.Module, D: nn.Module) -> tuple[Adam, Adam]:
    return Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.99)), Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.99))


def draw_z(n: int) -> Tensor:
    return torch.randn(n, Z_DIM)


def train_step(
    G: nn.Module, D: nn.Module, opt_G: Adam, opt_D: Adam, reals: Tensor, draw_z: Callable[[int], Tensor], step: int = 0
) -> dict[str, Tensor]:
    """One update of D, then one of G from fresh z, on `reals` (N, C, 28, 28)."""
    bce = nn.BCEWithLogitsLoss()
    ones, zeros = reals.new_ones(len(reals)), reals.new_zeros(len(reals))

    opt_D.zero_grad()
    fakes = G(draw_z(len(reals)).to(reals)).detach()
    loss_D = (bce(D(reals), ones) + bce(D(fakes), zeros)) / 2
    loss_D.backward()
    opt_D.step()

    opt_G.zero_grad()
    fakes = G(draw_z(len(reals)).to(reals))
    loss_G = bce(D(fakes), ones)
    loss_G.backward()
    opt_G.step()
    return {"Loss_D": loss_D.detach(), "Loss_G": loss_G.detach()}


class Digits(Dataset[Tensor]):
    """The images of an idx file, each turned by an angle of its own every time it is read."""

    def __init__(self, folder: str | Path):
        path = Path(folder) / IMAGES_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not there. Put MNIST's {IMAGES_FILE} into {folder}.")
        with gzip.open(path) as file:
            magic, n, height, width = np.frombuffer(file.read(16), dtype=">i4")
            if (magic, height, width) != (0x803, IMAGE_SIZE, IMAGE_SIZE):
                raise ValueError(f"{path}: not an idx file of 28x28 images. Fetch MNIST's {IMAGES_FILE} again.")
            self.images = np.frombuffer(file.read(), dtype=np.uint8).reshape(n, height, width)
        rotate = transforms.RandomRotation(20)                   # uniform in -20 to 20 degrees, nearest, black corners
        to_range = transforms.Normalize([0.5], [0.5])            # [0, 1] -> [-1, 1]
        self.transform = transforms.Compose([rotate, transforms.ToTensor(), to_range])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.transform(Image.fromarray(self.images[index]))
        return image


def make_dataset(folder: str | Path) -> Dataset[Tensor]:
    """Items: (1, 28, 28) float32 in [-1, 1], randomly rotated."""
    return Digits(folder)


def print_summary(network: nn.Module, example: Tensor) -> None:
    """Layer, output shape and parameters: a line for each layer, then one for the whole network."""
    print(f"\n{'layer':<20}{'output shape':<24}{'parameters':>12}")

    def print_line(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        count = sum(parameter.numel() for parameter in layer.parameters())
        print(f"{type(layer).__name__:<20}{tuple(output.shape)!s:<24}{count:>12,}")

    layers = [layer for layer in network.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(print_line) for layer in (*layers, network)]    # the network's line: the total
    network.eval()(example)                                      # eval: leaves the running statistics alone
    network.train()
    for hook in hooks:
        hook.remove()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the MNIST DCGAN.")
    parser.add_argument("folder", type=Path, help=f"folder that holds {IMAGES_FILE}")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    args = parser.parse_args(argv)

    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    batches = DataLoader(make_dataset(args.folder), args.batch, shuffle=True, num_workers=args.workers)
    G, D = make_networks()
    G.to(device), D.to(device)
    opt_G, opt_D = make_optimizers(G, D)
    print_summary(G, draw_z(1).to(device))
    print_summary(D, torch.zeros(1, CHANNELS, IMAGE_SIZE, IMAGE_SIZE, device=device))

    step, steps_in_window, sums = 0, 0, torch.zeros(2, device=device)
    for epoch in range(1, args.epochs + 1):
        for i, reals in enumerate(batches, start=1):
            if len(reals) > 1:
                stats = train_step(G, D, opt_G, opt_D, reals.to(device), draw_z)
                step, steps_in_window = step + 1, steps_in_window + 1
                sums += torch.stack([stats["Loss_D"], stats["Loss_G"]])
            filled = 30 * i // len(batches)
            print(f"\repoch {epoch}/{args.epochs} [{'#' * filled:<30}] {i}/{len(batches)}", end="", flush=True)
            at_the_end = epoch == args.epochs and i == len(batches)
            if steps_in_window and (steps_in_window == WINDOW or at_the_end):
                loss_D, loss_G = (sums / steps_in_window).tolist()
                print(f"\nstep {step}: mean Loss_D {loss_D:.4f}, mean Loss_G {loss_G:.4f}")
                steps_in_window, sums = 0, torch.zeros(2, device=device)
                with torch.no_grad():
                    fakes = G(draw_z(PICTURES).to(device))
                for name, images in (("fake", fakes), ("real", reals[:PICTURES])):
                    path = args.out / f"step_{step:06d}_{name}.png"
                    save_image(images, path, nrow=5, normalize=True, value_range=(-1, 1))
        print()


if __name__ == "__main__":
    main()
