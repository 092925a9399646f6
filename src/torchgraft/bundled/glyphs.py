"""`glyphs`: a small residual network that reads rendered letters of 16x16 pixels."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Block", "Glyphs", "glyphs"]


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2015, figure 2)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, before, H, W]` to `[N, after, H / stride, W / stride]`."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.downsample(x)
        done: Tensor = self.relu(out)
        return done


class Glyphs(nn.Module):
    """Stem, three residual blocks, mean pooling and a linear classifier."""

    def __init__(self, classes: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(nn.Conv2d(1, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        self.layer1 = Block(first, first, 1)
        self.layer2 = Block(first, second, 2)
        self.layer3 = Block(second, third, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(third, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Give the class scores `[N, classes]` of grey images `[N, 1, H, W]`."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        scores: Tensor = self.fc(self.flatten(self.pool(x)))
        return scores


def glyphs() -> Glyphs:
    """Build the network for the 297 classes of `letters:COUNT`, with random weights."""
    return Glyphs(297, (16, 48, 128))
