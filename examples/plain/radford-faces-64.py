"""radford-faces-64: the DCGAN paper's own system in one plain PyTorch script.

Source: Radford, Metz and Chintala, arXiv 1511.06434, as their code has it: Newmu/dcgan_code faces/train_uncond_dcgan.py.
What sets it apart: twice the usual width; kernels 5; batch norm with eps 1e-8 that always uses the batch's own statistics
(none are kept, pictures included), and in G over all 16,384 units before they become 1024 maps; L2 of 1e-5 added to the
gradient of every parameter; each minibatch updates G or D in turn, G first, so two minibatches make one full round.
Choice: the short side is resized to 64 before the centre crop (their files were face boxes already); images are found in
any folder. A last batch of one image is left out: a single value has no variance, and PyTorch refuses it.
Parameters: G 18,885,760, D 17,232,768.

    python radford-faces-64.py faces/ --out pictures         (--channels 1 for grey faces)
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

Z_DIM, IMAGE_SIZE, CHANNELS = 100, 64, 3
BATCH, EPOCHS = 128, 25
PICTURES = 196


def up(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 5, stride=2, padding=2, output_padding=1, bias=False)


def down(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 5, stride=2, padding=2, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-8, track_running_stats=False)


class Generator(nn.Module):
    """z (N, 100), N > 1 -> images (N, C, 64, 64) in [-1, 1]; every image depends on the whole batch."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.fc = nn.Linear(Z_DIM, 1024 * 4 * 4, bias=False)
        self.norm1 = nn.BatchNorm1d(1024 * 4 * 4, eps=1e-8, track_running_stats=False)
        self.deconv2, self.norm2 = up(1024, 512), batch_norm(512)
        self.deconv3, self.norm3 = up(512, 256), batch_norm(256)
        self.deconv4, self.norm4 = up(256, 128), batch_norm(128)
        self.deconv5 = up(128, channels)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.fc(z)))                # (N, 16384)
        x = x.view(-1, 1024, 4, 4)                        # (N, 1024, 4, 4)
        x = F.relu(self.norm2(self.deconv2(x)))           # (N, 512, 8, 8)
        x = F.relu(self.norm3(self.deconv3(x)))           # (N, 256, 16, 16)
        x = F.relu(self.norm4(self.deconv4(x)))           # (N, 128, 32, 32)
        return torch.tanh(self.deconv5(x))                # (N, C, 64, 64)


class Discriminator(nn.Module):
    """Images (N, C, 64, 64) -> probabilities (N,) of being real."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.conv1 = down(channels, 128)
        self.conv2, self.norm2 = down(128, 256), batch_norm(256)
        self.conv3, self.norm3 = down(256, 512), batch_norm(512)
        self.conv4, self.norm4 = down(512, 1024), batch_norm(1024)
        self.fc = nn.Linear(1024 * 4 * 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), 0.2)                      # (N, 128, 32, 32)
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.2)          # (N, 256, 16, 16)
        x = F.leaky_relu(self.norm3(self.conv3(x)), 0.2)          # (N, 512, 8, 8)
        x = F.leaky_relu(self.norm4(self.conv4(x)), 0.2)          # (N, 1024, 4, 4)
        return torch.sigmoid(self.fc(x.flatten(1)).squeeze(1))    # (N,)


def make_networks(channels: int = CHANNELS) -> tuple[Generator, Discriminator]:
    G, D = Generator(channels), Discriminator(channels)
    for module in (*G.modules(), *D.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
            nn.init.zeros_(module.bias)
    return G, D


def make_optimizers(G: nn.Module, D: nn.Module) -> tuple[Adam, Adam]:
    # Adam's weight_decay is added to the gradient (AdamW's is not), as their L2 is, and reaches every parameter.
    opt_G, opt_D = (Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), weight_decay=1e-5) for network in (G, D))
    return opt_G, opt_D


def draw_z(n: int) -> Tensor:
    return torch.rand(n, Z_DIM) * 2 - 1


def train_step(
    G: nn.Module, D: nn.Module, opt_G: Adam, opt_D: Adam, reals: Tensor, draw_z: Callable[[int], Tensor], step: int = 0
) -> dict[str, Tensor]:
    """One update: of G where `step` (from 0) is even, else of D. `reals` (N, C, 64, 64); G's turn only counts them."""
    bce = nn.BCELoss()
    ones, zeros = reals.new_ones(len(reals)), reals.new_zeros(len(reals))
    fakes = G(draw_z(len(reals)).to(reals))

    if step % 2 == 0:
        opt_G.zero_grad()
        loss_G = bce(D(fakes), ones)
        loss_G.backward()
        opt_G.step()
        return {"Loss_G": loss_G.detach()}

    opt_D.zero_grad()
    loss_D = bce(D(reals), ones) + bce(D(fakes.detach()), zeros)
    loss_D.backward()
    opt_D.step()
    return {"Loss_D": loss_D.detach()}


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
    parser = argparse.ArgumentParser(description="Train the DCGAN paper's system.")
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

    n_updates, costs = 0, {"Loss_G": torch.tensor(float("nan")), "Loss_D": torch.tensor(float("nan"))}
    for epoch in range(1, args.epochs + 1):
        for reals in batches:
            if len(reals) > 1:
                costs |= train_step(G, D, opt_G, opt_D, reals.to(device), draw_z, step=n_updates)
                n_updates += 1
        print(f"{epoch} {n_updates} g_cost {costs['Loss_G']:.4f} d_cost {costs['Loss_D']:.4f}")
        with torch.no_grad():                                    # by the statistics of these pictures themselves
            fakes = G(fixed_z)
        save_image(fakes, args.out / f"epoch_{epoch:03d}.png", nrow=14, normalize=True, value_range=(-1, 1))


if __name__ == "__main__":
    main()
