"""d2l-pokemon-64: the DCGAN of "Dive into Deep Learning" in one plain PyTorch script.

Source: d2l-ai/d2l-en, chapter_generative-adversarial-networks/dcgan.md (PyTorch tab); data: its pokemon.zip of sprites.
What sets it apart: lr .005, twenty-five times the usual; losses summed over the batch; every parameter, batch norm's
included, drawn from N(0, .02); D's first block normalised too; both steps share one z, but G runs again for its own step.
Choice: images are found in any folder, with or without class sub-folders; colour is read as RGB, transparency dropped.
Parameters: G 3,576,704, D 2,765,696.

    python d2l-pokemon-64.py pokemon/ --out pictures
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.utils import save_image

Z_DIM, IMAGE_SIZE, CHANNELS = 100, 64, 3
BATCH, EPOCHS = 256, 20
PICTURES = 21


def up_block(in_channels: int, out_channels: int, stride: int = 2, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 4, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def down_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    )


class Generator(nn.Module):
    """z (N, 100) -> images (N, C, 64, 64) in [-1, 1]."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.layers = nn.Sequential(                                               # (N, 100, 1, 1)
            up_block(Z_DIM, 512, stride=1, padding=0),                             # (N, 512, 4, 4)
            up_block(512, 256),                                                    # (N, 256, 8, 8)
            up_block(256, 128),                                                    # (N, 128, 16, 16)
            up_block(128, 64),                                                     # (N, 64, 32, 32)
            nn.ConvTranspose2d(64, channels, 4, stride=2, padding=1, bias=False),  # (N, C, 64, 64)
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layers(z.view(-1, Z_DIM, 1, 1))
        return images


class Discriminator(nn.Module):
    """Images (N, C, 64, 64) -> logits (N,), positive = looks real."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.layers = nn.Sequential(              # (N, C, 64, 64)
            down_block(channels, 64),             # (N, 64, 32, 32)
            down_block(64, 128),                  # (N, 128, 16, 16)
            down_block(128, 256),                 # (N, 256, 8, 8)
            down_block(256, 512),                 # (N, 512, 4, 4)
            nn.Conv2d(512, 1, 4, bias=False),     # (N, 1, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x).flatten()
        return logits


def make_networks(channels: int = CHANNELS) -> tuple[Generator, Discriminator]:
    G, D = Generator(channels), Discriminator(channels)
    for network in (G, D):
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0, 0.02)
    return G, D


def make_optimizers(G: nn.Module, D: nn.Module) -> tuple[Adam, Adam]:
    return Adam(G.parameters(), lr=0.005, betas=(0.5, 0.999)), Adam(D.parameters(), lr=0.005, betas=(0.5, 0.999))


def draw_z(n: int) -> Tensor:
    return torch.randn(n, Z_DIM)


def train_step(
    G: nn.Module, D: nn.Module, opt_G: Adam, opt_D: Adam, reals: Tensor, draw_z: Callable[[int], Tensor], step: int = 0
) -> dict[str, Tensor]:
    """One update of D, then one of G, on `reals` (N, C, 64, 64). Returns both losses for one image."""
    bce = nn.BCEWithLogitsLoss(reduction="sum")
    z = draw_z(len(reals)).to(reals)
    ones, zeros = reals.new_ones(len(reals)), reals.new_zeros(len(reals))

    opt_D.zero_grad()
    real_logits = D(reals)
    fake_logits = D(G(z).detach())
    loss_D = (bce(real_logits, ones) + bce(fake_logits, zeros)) / 2
    loss_D.backward()
    opt_D.step()

    opt_G.zero_grad()
    loss_G = bce(D(G(z)), ones)         # the same z through G again: G's running statistics move twice a step
    loss_G.backward()
    opt_G.step()
    return {"Loss_D": loss_D.detach() / len(reals), "Loss_G": loss_G.detach() / len(reals)}


class ImageFiles(Dataset[Tensor]):
    """Every image file below a folder, sub-folders included, in sorted order."""

    def __init__(self, folder: str | Path, transform: Callable[[Image.Image], Tensor], mode: str):
        self.files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
        self.transform, self.mode = transform, mode
        if not self.files:
            raise FileNotFoundError(f"{folder}: holds no image ({' '.join(IMG_EXTENSIONS)}). Name a folder that does.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert(self.mode))


def make_dataset(folder: str | Path, channels: int = CHANNELS) -> Dataset[Tensor]:
    """Items: (C, 64, 64) float32 in [-1, 1], squashed to a square (no crop)."""
    squash = transforms.Resize((IMAGE_SIZE, IMAGE_SIZE))
    to_range = transforms.Normalize([0.5], [0.5])                # [0, 1] -> [-1, 1]
    transform = transforms.Compose([squash, transforms.ToTensor(), to_range])
    return ImageFiles(folder, transform, mode="RGB" if channels == 3 else "L")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the d2l DCGAN.")
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--channels", type=int, default=CHANNELS, choices=(1, 3), help="1 = grey")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the picture of each epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    args = parser.parse_args(argv)

    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    dataset = make_dataset(args.folder, args.channels)
    batches = DataLoader(dataset, args.batch, shuffle=True, num_workers=args.workers)
    G, D = make_networks(args.channels)
    G.to(device), D.to(device)
    opt_G, opt_D = make_optimizers(G, D)

    for epoch in range(1, args.epochs + 1):
        started_at, seen, sums = time.perf_counter(), 0, torch.zeros(2, device=device)
        for reals in batches:
            stats = train_step(G, D, opt_G, opt_D, reals.to(device), draw_z)
            seen += len(reals)
            sums += torch.stack([stats["Loss_D"], stats["Loss_G"]]) * len(reals)
        with torch.no_grad():                                    # in train mode, from fresh z
            fakes = G(draw_z(PICTURES).to(device))
        save_image(fakes, args.out / f"epoch_{epoch:03d}.png", nrow=7, normalize=True, value_range=(-1, 1))
        loss_D, loss_G = (sums / seen).tolist()
        speed = seen / (time.perf_counter() - started_at)
        print(f"epoch {epoch}, loss_D {loss_D:.3f}, loss_G {loss_G:.3f}, {speed:.1f} examples/sec on {device}")


if __name__ == "__main__":
    main()
