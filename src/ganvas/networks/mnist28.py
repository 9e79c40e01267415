"""The unpadded 28x28 networks of the guided MNIST projects: transposed convolutions 1 -> 3 -> 6 -> 13 -> 28 pixels."""

from torch import Tensor, nn

from ganvas.networks.layers import Block, Conv2d, ConvTranspose2d
from ganvas.ops.precision import full


class Generator(nn.Module):
    """z to 28x28 images; kernels 3, 4, 3, 4, strides 2, 1, 2, 2, no padding, biases on."""

    def __init__(self, image_channels: int, z_dim: int, channels: int):
        super().__init__()
        self.image_size, self.image_channels, self.z_dim, self.min_batch = (28, 28), image_channels, z_dim, 1
        def block(in_maps: int, out_maps: int, kernel: int, stride: int) -> Block:
            conv = ConvTranspose2d(in_maps, out_maps, kernel, stride)
            return Block(conv, nn.BatchNorm2d(out_maps), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(
            block(z_dim, 4 * channels, 3, 2),            # (N, 4c, 3, 3)
            block(4 * channels, 2 * channels, 4, 1),     # (N, 2c, 6, 6)
            block(2 * channels, channels, 3, 2),         # (N, c, 13, 13)
        )
        self.to_image = ConvTranspose2d(channels, image_channels, 4, 2)

    def forward(self, z: Tensor) -> Tensor:              # (N, z_dim)
        images, exact = full(self.to_image(self.blocks(z[:, :, None, None])))
        with exact:
            return images.tanh()                         # (N, C, 28, 28) in [-1, 1]


class Discriminator(nn.Module):
    """28x28 images to logits; kernels 3, 5, 5, stride 2, no padding, biases on; the last batch norm sees 1x1 maps."""

    def __init__(self, image_channels: int, channels: int, slope: float):
        super().__init__()
        self.image_size, self.image_channels = (28, 28), image_channels
        self.min_batch = 2                               # 1x1 maps: a single image has no variance
        def block(in_maps: int, out_maps: int, kernel: int) -> Block:
            conv = Conv2d(in_maps, out_maps, kernel, 2)
            return Block(conv, nn.BatchNorm2d(out_maps), nn.LeakyReLU(slope, inplace=True))
        self.blocks = nn.Sequential(
            block(image_channels, channels, 3),          # (N, c, 13, 13)
            block(channels, 2 * channels, 5),            # (N, 2c, 5, 5)
            block(2 * channels, 4 * channels, 5),        # (N, 4c, 1, 1)
        )
        self.head = nn.Linear(4 * channels, 1)

    def forward(self, images: Tensor) -> Tensor:         # (N, C, 28, 28) in [-1, 1]
        x, exact = full(self.blocks(images).flatten(1))  # (N, 4c)
        with exact:
            logits: Tensor = self.head(x)
        return logits.flatten()                          # (N,)
