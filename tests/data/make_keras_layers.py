"""Write keras_layers.json.gz: the names of the layers of Keras's EfficientNets without their tops, in their order.

Run by hand where Keras is installed: KERAS_BACKEND=jax python tests/data/make_keras_layers.py
"""

import gzip
import json
from pathlib import Path


def main() -> None:
    import keras

    layers = {}
    for size in ("B0", "B1", "B7", "V2B0", "V2B3", "V2S", "V2M", "V2L"):
        make = getattr(keras.applications, f"EfficientNet{size}")
        model = make(include_top=False, weights=None, input_shape=(64, 64, 3))
        layers[f"EfficientNet{size}"] = [layer.name for layer in model.layers]
        keras.backend.clear_session()
    text = json.dumps({"keras": keras.__version__, "layers": layers})
    Path(__file__).with_name("keras_layers.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
