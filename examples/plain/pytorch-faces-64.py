"""pytorch-faces-64: the DCGAN of the official PyTorch tutorial in one plain script.

Source: the PyTorch tutorial dcgan_faces_tutorial.py (batch 128, 5 epochs) and pytorch/examples dcgan/main.py (64, 25).
What sets it apart: D ends in a sigmoid and its first block has no batch norm; batch norm weights from N(1, .02); G's step
reuses the fakes of D's step, so G runs once a step; the log tells D(x) and D(G(z)), mean probabilities, not only losses.
Choice: images are found in any folder, with or without class sub-folders; one picture at the end of each epoch (the
tutorial also draws every 500 steps), in train mode as there.
Parameters: G 3,576,704, D 2,765,568.

    python pytorch-faces-64.py faces/ --out pictures         (--channels 1 for grey faces)
"""

import argparse
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
BATCH, EPOCHS = 128, 5
PICTURES, PRINT_EVERY = 64, 50


class Generator(nn.Module):
    """z (N, 100) -> images (N, C, 64, 64) in [-1, 1]."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.main = nn.Sequential(                                                           # (N, 100, 1, 1)
            nn.ConvTranspose2d(Z_DIM, 512, 4, stride=1, padding=0, bias=False),              # (N, 512, 4, 4)
            nn.BatchNorm2d(512), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(512, 256, 4, stride=2, padding=1, bias=False),                # (N, 256, 8, 8)
            nn.BatchNorm2d(256), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1, bias=False),                # (N, 128, 16, 16)
            nn.BatchNorm2d(128), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1, bias=False),                 # (N, 64, 32, 32)
            nn.BatchNorm2d(64), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(64, channels, 4, stride=2, padding=1, bias=False),            # (N, C, 64, 64)
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.main(z.view(-1, Z_DIM, 1, 1))
        return images


class Discriminator(nn.Module):
    """Images (N, C, 64, 64) -> probabilities (N,) of being real."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.main = nn.Sequential(                                                           # (N, C, 64, 64)
            nn.Conv2d(channels, 64, 4, stride=2, padding=1, bias=False),                     # (N, 64, 32, 32)
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, 128, 4, stride=2, padding=1, bias=False),                          # (N, 128, 16, 16)
            nn.BatchNorm2d(128), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(128, 256, 4, stride=2, padding=1, bias=False),                         # (N, 256, 8, 8)
            nn.BatchNorm2d(256), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(256, 512, 4, stride=2, padding=1, bias=False),                         # (N, 512, 4, 4)
            nn.BatchNorm2d(512), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(512, 1, 4, stride=1, padding=0, bias=False),                           # (N, 1, 1, 1)
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        probs: Tensor = self.main(x).flatten()
        return probs


def make_networks(channels: int = CHANNELS) -> tuple[Generator, Discriminator]:
    G, D = Generator(channels), Discriminator(channels)
    for module in (*G.modules(), *D.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
            nn.init.zeros_(module.bias)
    return G, D


def make_optimizers(G: nn.Module, D: nn.Module) -> tuple[Adam, Adam]:
    return Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999)), Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))


def draw_z(n: int) -> Tensor:
    return torch.randn(n, Z_DIM)


def train_step(
    G: nn.Module, D: nn.Module, opt_G: Adam, opt_D: Adam, reals: Tensor, draw_z: Callable[[int], Tensor], step: int = 0
) -> dict[str, Tensor]:
    """One update of D, then one of G on the same fakes; `reals` (N, C, 64, 64).

    Besides the losses: D(x) on the reals, D(G(z))1 and D(G(z))2 on the fakes before and after D's update.
    """
    bce = nn.BCELoss()
    ones, zeros = reals.new_ones(len(reals)), reals.new_zeros(len(reals))

    opt_D.zero_grad()
    real_probs = D(reals)
    errD_real = bce(real_probs, ones)
    errD_real.backward()
    fakes = G(draw_z(len(reals)).to(reals))
    fake_probs = D(fakes.detach())
    errD_fake = bce(fake_probs, zeros)
    errD_fake.backward()
    opt_D.step()

    opt_G.zero_grad()
    fake_probs_after = D(fakes)
    errG = bce(fake_probs_after, ones)
    errG.backward()
    opt_G.step()
    return {
        "Loss_D": (errD_real + errD_fake).detach(),
        "Loss_G": errG.detach(),
        "D(x)": real_probs.detach().mean(),
        "D(G(z))1": fake_probs.detach().mean(),
        "D(G(z))2": fake_probs_after.detach().mean(),
    }


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
    """Items: (C, 64, 64) float32 in [-1, 1]: the short side resized to 64, the centre cut out."""
    resize, crop = transforms.Resize(IMAGE_SIZE), transforms.CenterCrop(IMAGE_SIZE)
    to_range = transforms.Normalize([0.5], [0.5])                # [0, 1] -> [-1, 1]
    transform = transforms.Compose([resize, crop, transforms.ToTensor(), to_range])
    return ImageFiles(folder, transform, mode="RGB" if channels == 3 else "L")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the PyTorch tutorial's DCGAN.")
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
    fixed_z = draw_z(PICTURES).to(device)

    for epoch in range(args.epochs):
        for i, reals in enumerate(batches):
            stats = train_step(G, D, opt_G, opt_D, reals.to(device), draw_z)
            if i % PRINT_EVERY == 0:
                numbers = tuple(float(value) for value in stats.values())
                form = "Loss_D: %.4f Loss_G: %.4f D(x): %.4f D(G(z)): %.4f / %.4f"
                print(f"[{epoch}/{args.epochs}][{i}/{len(batches)}] {form % numbers}")
        with torch.no_grad():                                    # in train mode: statistics of these 64 pictures
            fakes = G(fixed_z)
        save_image(fakes, args.out / f"epoch_{epoch + 1:03d}.png", nrow=8, normalize=True, value_range=(-1, 1))


if __name__ == "__main__":
    main()
