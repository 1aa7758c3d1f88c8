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
    OnBad,
    Source,
    Splits,
    check_labels,
    check_seed,
    check_source,
    duplicates,
    fingerprint,
    from_arrays,
    from_folder,
    oversample,
    scan,
    split,
    undersample,
)
from jaxdl.data.survey import Survey, survey
from jaxdl.data.tables import Categorical, Numeric, TablePreprocessing, TableSplits, from_csv
from jaxdl.data.tfds import load

__all__ = [
    "Arrays",
    "BadImage",
    "Batch",
    "Categorical",
    "Images",
    "Numeric",
    "OnBad",
    "Preprocessing",
    "Source",
    "Splits",
    "Survey",
    "TablePreprocessing",
    "TableSplits",
    "batches",
    "check_labels",
    "check_seed",
    "check_source",
    "decode",
    "decoded",
    "duplicates",
    "fingerprint",
    "from_arrays",
    "from_csv",
    "from_folder",
    "load",
    "order",
    "oversample",
    "scan",
    "split",
    "survey",
    "undersample",
]
