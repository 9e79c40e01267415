"""keras-pokemon-64: a Keras Pokemon DCGAN, said again in one plain PyTorch script with Keras's own arithmetic.

Source: the project's description, which fixes 64x64 RGB in [-1, 1], z (100,), Adam 2e-4 with beta_1 .5, batch 16, 10,000
"epochs" (in this lineage one random minibatch each: steps, here), pictures every 100 and a GIF of them all, Glorot
initialisation, LeakyReLU .01 in G, batch norm, tanh, D with sigmoid + BCE and strided convolutions, two D losses.
What sets it apart (Keras's defaults): 'same' padding at stride 2 with kernel 5 pads 1 before and 2 after; batch norm eps
1e-3 and momentum .9 (PyTorch calls that .1); Adam's epsilon 1e-7; minibatches drawn with replacement.
Choice: layers and widths; D's order conv, LeakyReLU .2, batch norm; two optimizer steps for D, reals first; fresh z for G;
G makes D's fakes in train mode; pictures in eval mode from 16 fixed z; images squashed to a square, transparency dropped.
The description counts "10 batches" of pictures; 10,000 / 100 is 100, and 100 are saved.
Parameters: G 5,135,363, D 4,316,545.

    python keras-pokemon-64.py pokemon/ --out pictures
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.utils import save_image

Z_DIM, IMAGE_SIZE, CHANNELS = 100, 64, 3
BATCH, STEPS = 16, 10_000
PICTURES, PICTURE_EVERY = 16, 100


class SameConv2d(nn.Conv2d):
    """Keras Conv2D(kernel 5, strides 2, padding='same') on an even size: (N, in, H, W) -> (N, out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (1, 2, 1, 2)))      # padding=2 would shift everything by one pixel


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Keras Conv2DTranspose(kernel 5, strides 2, padding='same'): (N, in, H, W) -> (N, out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 5, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x, output_size)[:, :, 1:-2, 1:-2]    # (2H + 3, 2W + 3), less 1 before and 2 after


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


class Generator(nn.Module):
    """z (N, 100) -> images (N, C, 64, 64) in [-1, 1]."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.layers = nn.Sequential(                                                # (N, 100)
            nn.Linear(Z_DIM, 512 * 4 * 4), nn.Unflatten(1, (512, 4, 4)),            # (N, 512, 4, 4)
            batch_norm(512), nn.LeakyReLU(0.01),
            SameConvTranspose2d(512, 256), batch_norm(256), nn.LeakyReLU(0.01),     # (N, 256, 8, 8)
            SameConvTranspose2d(256, 128), batch_norm(128), nn.LeakyReLU(0.01),     # (N, 128, 16, 16)
            SameConvTranspose2d(128, 64), batch_norm(64), nn.LeakyReLU(0.01),       # (N, 64, 32, 32)
            SameConvTranspose2d(64, channels), nn.Tanh(),                           # (N, C, 64, 64)
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layers(z)
        return images


class Discriminator(nn.Module):
    """Images (N, C, 64, 64) -> probabilities (N,) of being real."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.layers = nn.Sequential(                                                # (N, C, 64, 64)
            SameConv2d(channels, 64), nn.LeakyReLU(0.2),                            # (N, 64, 32, 32)
            SameConv2d(64, 128), nn.LeakyReLU(0.2), batch_norm(128),                # (N, 128, 16, 16)
            SameConv2d(128, 256), nn.LeakyReLU(0.2), batch_norm(256),               # (N, 256, 8, 8)
            SameConv2d(256, 512), nn.LeakyReLU(0.2), batch_norm(512),               # (N, 512, 4, 4)
            nn.Flatten(), nn.Linear(512 * 4 * 4, 1), nn.Sigmoid(),                  # (N, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        probs: Tensor = self.layers(x).squeeze(1)
        return probs


def make_networks(channels: int = CHANNELS) -> tuple[Generator, Discriminator]:
    G, D = Generator(channels), Discriminator(channels)
    for name, parameter in (*G.named_parameters(), *D.named_parameters()):
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)              # Glorot; of fan in + fan out, so right transposed too
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return G, D                                             # batch norm's weight is 1 already


def make_optimizers(G: nn.Module, D: nn.Module) -> tuple[Adam, Adam]:
    opt_G, opt_D = (Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=1e-7) for network in (G, D))
    return opt_G, opt_D


def draw_z(n: int) -> Tensor:
    return torch.randn(n, Z_DIM)


def train_step(
    G: nn.Module, D: nn.Module, opt_G: Adam, opt_D: Adam, reals: Tensor, draw_z: Callable[[int], Tensor], step: int = 0
) -> dict[str, Tensor]:
    """Two updates of D, on `reals` (N, C, 64, 64) and on fakes, then one of G from fresh z. Loss_D is D's two losses' sum."""
    bce = nn.BCELoss()
    ones, zeros = reals.new_ones(len(reals)), reals.new_zeros(len(reals))

    opt_D.zero_grad()
    loss_real = bce(D(reals), ones)
    loss_real.backward()
    opt_D.step()

    opt_D.zero_grad()
    fakes = G(draw_z(len(reals)).to(reals)).detach()
    loss_fake = bce(D(fakes), zeros)        # by a D that has already learnt from the reals
    loss_fake.backward()
    opt_D.step()

    opt_G.zero_grad()
    fakes = G(draw_z(len(reals)).to(reals))
    loss_G = bce(D(fakes), ones)
    loss_G.backward()
    opt_G.step()
    return {"Loss_D": (loss_real + loss_fake).detach(), "Loss_G": loss_G.detach()}


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


def make_dataset(folder: str | Path, channels: int = CHANNELS) -> ImageFiles:
    """Items: (C, 64, 64) float32 in [-1, 1], squashed to a square (no crop)."""
    squash = transforms.Resize((IMAGE_SIZE, IMAGE_SIZE))
    to_range = transforms.Normalize([0.5], [0.5])                # [0, 1] -> [-1, 1]
    transform = transforms.Compose([squash, transforms.ToTensor(), to_range])
    return ImageFiles(folder, transform, mode="RGB" if channels == 3 else "L")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the Keras Pokemon DCGAN.")
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--channels", type=int, default=CHANNELS, choices=(1, 3), help="1 = grey")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the pictures and the GIF")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    args = parser.parse_args(argv)

    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    dataset = make_dataset(args.folder, args.channels)
    sampler = RandomSampler(dataset, replacement=True, num_samples=args.steps * args.batch)
    batches = DataLoader(dataset, args.batch, sampler=sampler, num_workers=args.workers)
    G, D = make_networks(args.channels)
    G.to(device), D.to(device)
    opt_G, opt_D = make_optimizers(G, D)
    fixed_z = draw_z(PICTURES).to(device)

    frames: list[Image.Image] = []
    for step, reals in enumerate(batches, start=1):
        stats = train_step(G, D, opt_G, opt_D, reals.to(device), draw_z)
        if step % PICTURE_EVERY == 0 or step == args.steps:
            print(f"{step}/{args.steps} [D loss: {stats['Loss_D']:.4f}] [G loss: {stats['Loss_G']:.4f}]")
            path = args.out / f"step_{step:05d}.png"
            G.eval()
            with torch.no_grad():
                fakes = G(fixed_z)
            G.train()
            save_image(fakes, path, nrow=4, normalize=True, value_range=(-1, 1))
            with Image.open(path) as picture:
                frames.append(picture.convert("RGB"))
    frames[0].save(args.out / "progress.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)


if __name__ == "__main__":
    main()
