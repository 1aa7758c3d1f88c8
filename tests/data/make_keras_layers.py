"""Write keras_layers.json.gz: the names of the layers of Keras's EfficientNets without their tops, in their order.

Run by hand where Keras is installed: KERAS_BACKEND=jax python tests/data/make_keras_layers.py
"""

import gzip
import json
from pathlib import Path

import keras

names = [f"EfficientNet{size}" for size in ("B0", "B1", "B7", "V2B0", "V2B3", "V2S", "V2M", "V2L")]
layers = {}
for name in names:
    make = getattr(keras.applications, name)
    layers[name] = [layer.name for layer in make(include_top=False, weights=None, input_shape=(64, 64, 3)).layers]
    keras.backend.clear_session()
text = json.dumps({"keras": keras.__version__, "layers": layers})
Path(__file__).with_name("keras_layers.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
