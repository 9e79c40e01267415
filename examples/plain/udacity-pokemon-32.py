"""udacity-pokemon-32: the Udacity 32x32 DCGAN on Pokemon artwork, in one plain PyTorch script.

Source: the author's description (which fixes 4x4x512, batch norm on every hidden layer but D's first, a leaky ReLU after
G's first batch norm, kernels 4 with stride 2) and his notebook, sanketsans/Deep-Learning PokemonGAN/Pokemon-GAN.ipynb
(which fixes the rest: z, labels, Adam, batch, length, pictures); both descend from udacity/deep-learning-v2-pytorch
dcgan-svhn. The notebook's own networks differ from the description, and the description wins here: there, G starts from
256x4x4 without batch norm and ends in a 3x3 convolution, and D is 32-64-128 with batch norm on the second only.
What sets it apart: z from U(-1, 1); D's real label is .9, G's is 1; Adam's second beta .9; weights as PyTorch makes them.
Choice: images are found in any folder, with or without class sub-folders; transparency is dropped.
Parameters: G 3,456,768, D 663,297.

    python udacity-pokemon-32.py pokemon/ --out pictures
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.utils import save_image

Z_DIM, IMAGE_SIZE, CHANNELS = 100, 32, 3
BATCH, EPOCHS = 64, 300
PICTURES, PRINT_EVERY = 8, 300


class Generator(nn.Module):
    """z (N, 100) -> images (N, C, 32, 32) in [-1, 1]."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.fc = nn.Linear(Z_DIM, 512 * 4 * 4)
        self.norm1 = nn.BatchNorm2d(512)
        self.deconv2 = nn.ConvTranspose2d(512, 256, 4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(256)
        self.deconv3 = nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(128)
        self.deconv4 = nn.ConvTranspose2d(128, channels, 4, stride=2, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z).view(-1, 512, 4, 4)            # (N, 512, 4, 4)
        x = F.leaky_relu(self.norm1(x), 0.2)
        x = F.relu(self.norm2(self.deconv2(x)))       # (N, 256, 8, 8)
        x = F.relu(self.norm3(self.deconv3(x)))       # (N, 128, 16, 16)
        return torch.tanh(self.deconv4(x))            # (N, C, 32, 32)


class Discriminator(nn.Module):
    """Images (N, C, 32, 32) -> logits (N,), positive = looks real."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 4, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(64, 128, 4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(128)
        self.conv3 = nn.Conv2d(128, 256, 4, stride=2, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(256)
        self.fc = nn.Linear(256 * 4 * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), 0.2)                  # (N, 64, 16, 16)
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.2)      # (N, 128, 8, 8)
        x = F.leaky_relu(self.norm3(self.conv3(x)), 0.2)      # (N, 256, 4, 4)
        logits: Tensor = self.fc(x.flatten(1)).squeeze(1)     # (N,)
        return logits


def make_networks(channels: int = CHANNELS) -> tuple[Generator, Discriminator]:
    return Generator(channels), Discriminator(channels)


def make_optimizers(G: nn.Module, D: nn.Module) -> tuple[Adam, Adam]:
    return Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.9)), Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.9))


def draw_z(n: int) -> Tensor:
    return torch.rand(n, Z_DIM) * 2 - 1


def train_step(
    G: nn.Module, D: nn.Module, opt_G: Adam, opt_D: Adam, reals: Tensor, draw_z: Callable[[int], Tensor], step: int = 0
) -> dict[str, Tensor]:
    """One update of D, then one of G from fresh z, on `reals` (N, C, 32, 32)."""
    bce = nn.BCEWithLogitsLoss()
    ones, zeros = reals.new_ones(len(reals)), reals.new_zeros(len(reals))

    opt_D.zero_grad()
    d_real_loss = bce(D(reals), 0.9 * ones)              # one-sided smoothing: D must not grow too sure of reals
    fakes = G(draw_z(len(reals)).to(reals)).detach()
    d_loss = d_real_loss + bce(D(fakes), zeros)
    d_loss.backward()
    opt_D.step()

    opt_G.zero_grad()
    fakes = G(draw_z(len(reals)).to(reals))
    g_loss = bce(D(fakes), ones)                         # flipped label, and not smoothed
    g_loss.backward()
    opt_G.step()
    return {"Loss_D": d_loss.detach(), "Loss_G": g_loss.detach()}


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
    """Items: (C, 32, 32) float32 in [-1, 1], squashed to a square (no crop)."""
    squash = transforms.Resize((IMAGE_SIZE, IMAGE_SIZE))
    to_range = transforms.Normalize([0.5], [0.5])                # [0, 1] -> [-1, 1], the notebook's x * 2 - 1
    transform = transforms.Compose([squash, transforms.ToTensor(), to_range])
    return ImageFiles(folder, transform, mode="RGB" if channels == 3 else "L")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the Udacity 32x32 DCGAN.")
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

    for epoch in range(1, args.epochs + 1):
        for batch_index, reals in enumerate(batches):
            stats = train_step(G, D, opt_G, opt_D, reals.to(device), draw_z)
            if batch_index % PRINT_EVERY == 0:
                losses = f"d_loss: {stats['Loss_D']:6.4f} | g_loss: {stats['Loss_G']:6.4f}"
                print(f"Epoch [{epoch:5d}/{args.epochs:5d}] | {losses}")
        G.eval()                                                 # pictures from the running statistics
        with torch.no_grad():
            fakes = G(fixed_z)
        G.train()
        save_image(fakes, args.out / f"epoch_{epoch:03d}.png", nrow=PICTURES, normalize=True, value_range=(-1, 1))


if __name__ == "__main__":
    main()
