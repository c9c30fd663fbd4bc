"""The samples as they are, and a linear layer."""

import torch

from whitebench import NoOptions
from whitebench_models.pixels import PIXELS, Pixels


def test_features_are_the_samples_flattened_and_the_logits_linear_in_them() -> None:
    model = Pixels(NoOptions(), (1, 2, 3), 4)
    images = torch.arange(12.0).reshape(2, 1, 2, 3)
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    expected = images.reshape(2, 6) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), expected)
    assert model.get_submodule(PIXELS.head) is model.head


def test_before_training_every_class_is_as_likely() -> None:
    assert not Pixels(NoOptions(), (1, 8, 8), 10)(torch.rand(3, 1, 8, 8)).any()
