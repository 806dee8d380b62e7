"""Keras: a line is fitted; each batch is recorded, and each epoch.

Run it with ``python examples/train_keras.py``. Then look at

    foundry-fastlog summary runs/keras
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

from foundry_fastlog.integrations.keras import FastlogCallback

x = np.random.default_rng(0).normal(size=(80, 2))
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1), loss="mse")
with FastlogCallback("runs/keras", batches=True) as callback:
    model.fit(x, x.sum(axis=1), epochs=3, batch_size=8, validation_split=0.2, callbacks=[callback])
    model.evaluate(x, x.sum(axis=1), callbacks=[callback])
