"""Sources of examples, and batches of them.

train, validation, test = jaxdl.data.from_folder("photos", preprocessing)
for batch in jaxdl.data.batches(train, batch_size=32, seed=0, epoch=0): ...
"""

from jaxdl.data.batches import batches, decoded, order
from jaxdl.data.images import BadImage, Preprocessing, decode
from jaxdl.data.sources import (
    Arrays,
    Batch,
    Images,
    Source,
    Splits,
    check_labels,
    check_seed,
    fingerprint,
    from_arrays,
    from_folder,
    scan,
    split,
)
from jaxdl.data.survey import Survey, survey

__all__ = [
    "Arrays",
    "BadImage",
    "Batch",
    "Images",
    "Preprocessing",
    "Source",
    "Splits",
    "Survey",
    "batches",
    "check_labels",
    "check_seed",
    "decode",
    "decoded",
    "fingerprint",
    "from_arrays",
    "from_folder",
    "order",
    "scan",
    "split",
    "survey",
]
