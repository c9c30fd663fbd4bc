"""my-model: z+ = ReLU(z + softmax(w w^T / sqrt(d)) w - 0.1) with w = LN(z) U, on the rows of an image."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from whitebench import ModelSpec, Shape, hookimpl


class Layer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        w = self.project(z)
        return F.relu(z + F.scaled_dot_product_attention(w, w, w) - 0.1)


@dataclass(frozen=True)
class Config:
    dim: int = 64


class MyModel(nn.Module):
    def __init__(self, config: Config, shape: Shape, classes: int) -> None:
        super().__init__()
        _, height, width = shape
        self.embed = nn.Linear(width, config.dim)
        self.layers = nn.Sequential(Layer(config.dim), Layer(config.dim))
        self.head = nn.Linear(height * config.dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(images.flatten(1, 2))).flatten(1))


@hookimpl
def register_models() -> list[ModelSpec]:
    trace = {"tokens": "layers.*", "codes": "layers.*"}  # what coding-rate and sparsity look at
    return [
        ModelSpec(name="my-model", summary="attend and shrink", config=Config, build=MyModel, head="head", trace=trace)
    ]
