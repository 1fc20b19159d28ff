"""The digits benchmark as a task for the baselines: same network, data, batches and epochs as :mod:`geta_nb.bench.digits`."""

from __future__ import annotations

import torch

from geta_nb.baselines.task import Task
from geta_nb.bench import digits


def digits_task(*, epochs: int = digits.EPOCHS, validation: bool = False) -> Task:
    """Return the task.

    Args:
        epochs: of one whole run.
        validation: train on 80 % of the training images and evaluate on the others; for choosing options, never for tables.
    """
    data = digits.load_digits(validation=validation)
    some = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(0))[:512]
    return Task(
        build=digits.digits_net,
        batches=lambda generator: digits.batches(data, generator),
        steps_per_epoch=data.steps_per_epoch,
        calibration=data.train_images[: 8 * digits.BATCH],
        check=(data.train_images[some], data.train_labels[some]),
        evaluate=lambda model: digits.evaluate(model, data.test_images, data.test_labels),
        epochs=epochs,
        learning_rate=digits.LEARNING_RATE,
        weight_decay=digits.WEIGHT_DECAY,
    )
