"""Use the model in your own training loop, with any data, optimizer and loss.

python examples/own_training_loop.py
"""

import torch
from torch.nn.functional import multilabel_soft_margin_loss
from torch.utils.data import DataLoader, TensorDataset

import wildcat
from wildcat.data.transforms import warp
from wildcat.prediction.predictor import Predictor
from wildcat.runs.settings import InferenceSettings

SIZE, EPOCHS = 96, 3
torch.manual_seed(0)

# Any tensors work: uint8 images (N, 3, H, W) and labels (N, C) of 0 and 1.
dataset = wildcat.open_dataset("synthetic:count=32,size=96", "train")
images = torch.stack([torch.from_numpy(warp(dataset.image(i), SIZE)).permute(2, 0, 1) for i in range(len(dataset))])
labels = torch.from_numpy(dataset.labels > 0).float()

model = wildcat.create_model("lite0", num_classes=len(dataset.classes), num_maps=4, kmax=0.2, kmin=0.2, alpha=0.7)
model.backbone.freeze(batch_norm=True)
optimizer = torch.optim.AdamW(
    [{"params": model.backbone.parameters(), "lr": 1e-4}, {"params": model.transfer.parameters(), "lr": 1e-3}]
)
for epoch in range(EPOCHS):
    model.train()
    total = 0.0
    for batch, target in DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True):
        out = model(model.normalize(batch))  # out.scores are logits (N, C); out.class_maps (N, C, h, w)
        loss = multilabel_soft_margin_loss(out.scores, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    print(f"epoch {epoch + 1}: loss {total / len(images):.3f}")

# A predictor computes scores, points and masks in pixels of the original image.
settings = InferenceSettings(dataset.classes, multi_label=True, score_sizes=(SIZE,), map_sizes=(SIZE,))
prediction = Predictor.from_model(model, settings)(dataset.image(0))
for c in prediction.candidates():
    name = dataset.classes[c]
    x, y = prediction.points[name]
    print(f"{name}: {100 * prediction.scores[name]:.0f} % at ({x:.0f}, {y:.0f})")
