"""What do the layers of a network of one's own do? No plugin, no suite, no store."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import whitebench


class Rows(nn.Module):
    """A digit's eight rows are eight tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, nhead=4, dim_feedforward=64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=3)
        self.head = nn.Linear(32, 10)

    def forward(self, images):
        return self.head(self.encoder(self.embed(images)).mean(dim=1))


torch.manual_seed(0)
pixels, labels = (torch.from_numpy(one) for one in load_digits(return_X_y=True))
images, network, untrained = pixels.float().unflatten(1, (8, 8)) / 16, Rows(), Rows()
optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
for _ in range(60):  # anyone's loop
    loss = nn.functional.cross_entropy(network(images[:600]), labels[:600])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

where = {
    "tokens": "encoder.layers.*",
    "codes": "encoder.layers.*.linear2:in",
    "attention-inputs": "encoder.layers.*.self_attn:in",
    "attention-forms": "encoder.layers.*.self_attn:forms()",
}
spec = whitebench.TraceSpec(trace=where, layout=whitebench.Layout(heads=4))
metrics = ["accuracy", "coding-rate", "sparsity", "margin"]
print(whitebench.score(network, (images[600:], labels[600:]), metrics, spec, untrained=untrained))
