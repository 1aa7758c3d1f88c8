# %% [markdown]
# # 12. Food Vision
#
# The milestone of the course: 101 dishes, 75,750 photographs to learn from, 25,250 to be tested on. Nothing in it is
# new. It is the earlier notebooks, put together with care. Here all of it is done at toy size, on a folder that we make
# ourselves, and beside each part stands what it is at full size. At the end of this notebook you can
#
# - go from a folder of photographs to a trained network and a report on it,
# - say what each ingredient of a serious recipe is for: a schedule, rates by depth, averaged weights, label smoothing,
# - start the real thing with one command.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from PIL import Image

import jaxdl
from jaxdl import augment, data, losses, metrics, pretrained, report, transfer

jaxdl.parallel.configure()

# %% [markdown]
# ## A folder of photographs
#
# One folder for each class, inside `train/` and `test/`: that is all that is asked of your own photographs. Ours are
# pieces of three pictures that come with scikit-image. In place of dishes there are materials, and the test pieces come
# from another part of the picture.

# %%
holder = tempfile.TemporaryDirectory()
folder = Path(holder.name) / "PHOTOS"
draw = np.random.default_rng(0)
for name in ("brick", "grass", "gravel"):
    picture = getattr(skimage.data, name)()
    for split, (left, right), count in (("train", (0, 224), 24), ("test", (304, 512), 30)):
        place = folder / split / name
        place.mkdir(parents=True)
        for n in range(count):
            y, x = draw.integers(512 - 64), draw.integers(left, right - 64)
            Image.fromarray(picture[y : y + 64, x : x + 64]).save(place / f"{n:03}.jpg", quality=90)

for split, counts in data.survey(folder).counts.items():
    print(split, counts)

# %% [markdown]
# `jaxdl data inspect PHOTOS` says the same on the command line, and what is wrong with a folder: damaged files, files
# that are no images, copies that are in two splits. Do this before anything else; it saves days.
#
# ## From files to batches
#
# The preprocessing comes from the pretrained weights ([notebook 11](11_transfer_learning.ipynb)). `from_folder` reads
# `train/` and `test/`, and splits a tenth of the training images off for validation, the same share of each class.
# `decoded` decodes every image once. (At full size: `--cache FOLDER`, 15 GB, and from the second epoch on nobody waits
# for a JPEG.)

# %%
name = "efficientnet_lite0"
model, variables, published = pretrained.load(name)
preprocessing = data.Preprocessing(64, mean=published.mean, std=published.std)  # at full size: published, with 224
train, validation, test = map(data.decoded, data.from_folder(folder, preprocessing))
print(f"{len(train)} to train, {len(validation)} to watch, {len(test)} to test; classes {', '.join(train.classes)}")

report.augmentations(train.inputs[[30]], jax.jit(augment.PHOTOS), jax.random.key(0))

# %% [markdown]
# ## The recipe
#
# A recipe is data, not code. This is the one of [experiments/food_vision.py](../experiments/food_vision.py): first the
# new head alone, on the frozen network, then the whole network with it.

# %%
serious = jaxdl.Recipe(
    start="stem", head_epochs=10, epochs=10, fine_tuning_rate=1e-3, layer_decay=0.8, ema=0.99, label_smoothing=0.1
)
_, with_head = transfer.new_head(model, variables, 101)
head, whole = transfer.fine_tune(with_head["params"], serious)
for phase in (head, whole):
    what = "the head" if phase.trainable == ("head",) else "everything"
    print(f"{phase.name:9} trains {what}: {phase.epochs} epochs at {phase.learning_rate}, {phase.schedule} schedule")

# %% [markdown]
# What are all of these for?
#
# **Why the head first?** While the head is still wrong about everything, the gradients that it sends back into the
# network are large and mean little. They would spoil what it knows. A few epochs of the head alone cost next to
# nothing.
#
# **Why a schedule?** At first the rate rises from zero over a tenth of the time, since the first steps are the wildest
# (*warm-up*); then it falls along half a cosine, so that the walk comes to rest ([notebook
# 3](03_gradient_descent.ipynb)).
#
# **Why rates by depth?** The first layers see edges, which dishes have as well as dogs; they need little change. The
# last ones see parts of dogs, and need much. So every stage learns at 0.8 times the rate of the next.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
report.schedule((head, whole), steps=75_750 // 128, axis=axes[0])
decay = dict(transfer.layer_decay(with_head["params"], 0.8))
stages = {stage: decay[stage] for stage in ("stem", *(f"blocks_{n}_0" for n in range(1, 8)), "top", "head")}
axes[1].bar(list(stages), list(stages.values()))
axes[1].tick_params(axis="x", rotation=60)
axes[1].set_title("share of the learning rate")
plt.show()
print(f"the stem learns at {decay['stem']:.2f} of the head's rate")
assert np.isclose(decay["stem"], 0.8**9)

# %% [markdown]
# **Why averaged weights?** Single steps stagger about the bottom of the valley; their average lies nearer to it.
# `ema=0.99` keeps a moving average of the weights, $\bar w \leftarrow 0.99\, \bar w + 0.01\, w$, which is about the
# mean of the last hundred steps, and that is what is measured and kept.
#
# **Why label smoothing?** To get the loss to 0 on a training photograph, its logit would have to grow for ever. If a
# share $\varepsilon$ of each label is spread over all $K$ classes, the network should say
# $1 - \varepsilon + \varepsilon / K$ for the right one and $\varepsilon / K$ for each other, and the best distance of
# their logits is finite, $\log\big((1 - \varepsilon + \varepsilon / K)\, /\, (\varepsilon / K)\big)$. Here is the loss
# of an example of 101 classes by that distance:

# %%
gaps = np.linspace(0, 15, 60)
logits = np.zeros((60, 101), np.float32)
logits[:, 0] = gaps
zeros = np.zeros(60, np.int32)
plt.figure(figsize=(5, 2.8))
for amount in (0.0, 0.1):
    line = losses.label_smoothing(amount)(jax.numpy.asarray(logits), jax.numpy.asarray(zeros))
    plt.plot(gaps, line, label=f"smoothing {amount}")
    if amount:
        formula = np.log((1 - amount + amount / 101) / (amount / 101))
        print(f"the loss is lowest at {gaps[np.argmin(line)]:.1f}; by the formula at {formula:.1f}")
plt.xlabel("how far the right logit is above the others")
plt.ylabel("loss")
plt.legend()
plt.show()

# %% [markdown]
# ## Training
#
# At toy size: ten epochs of the head, and three of the last convolution with it. At full size it would be the recipe
# above, in bfloat16, on a GPU or TPU.

# %%
toy = jaxdl.Recipe(start="top", head_epochs=10, epochs=3, learning_rate=2e-3, fine_tuning_rate=1e-4, ema=0.9)
tuned = jaxdl.fine_tune(
    model,
    variables,
    train,
    validation,
    toy,
    augment=augment.PHOTOS,
    normalize=preprocessing.normalize,
    progress=False,
)
report.curves(tuned.history)

# %% [markdown]
# ## The report
#
# Once, at the end, the test data. Of 101 dishes, one number says little: which are found, and which are taken for
# which? `class_scores` has the F1 of each class, from the best to the worst ([notebook 8](08_precision_recall.ipynb)),
# and at its lower end on Food-101 you may expect steak, pork chop and filet mignon, which are hard for the rest of us
# as well.

# %%
figures = jaxdl.evaluate(
    tuned.model,
    tuned.variables,
    test,
    normalize=preprocessing.normalize,
    metrics={"accuracy": metrics.accuracy, "matrix": metrics.confusion()},
)
print(f"test accuracy {figures['accuracy']:.2f} of {figures['count']}")
assert figures["accuracy"] > 0.9

fig, axes = plt.subplots(1, 2, figsize=(8.5, 2.8))
report.class_scores(figures["matrix"], test.classes, axis=axes[0])
report.confusion_matrix(figures["matrix"], test.classes, normalize=False, axis=axes[1])
plt.show()

# %% [markdown]
# ## A photograph of your own
#
# `preprocessing.resize` takes a path, and makes of it what the training images were made of. `predict` gives logits,
# and a softmax makes probabilities of them.

# %%
stones = skimage.data.gravel()
for name, piece in {"near.jpg": stones[200:264, 400:464], "far.jpg": stones[200:392, 310:502]}.items():
    Image.fromarray(piece).save(folder / name)
mine = np.stack([preprocessing.resize(folder / name) for name in ("near.jpg", "far.jpg")])  # [2,64,64,3]
logits = jaxdl.predict(tuned.model, tuned.variables, mine, normalize=preprocessing.normalize)
for name, p in zip(("near", "far"), np.asarray(jax.nn.softmax(logits)), strict=True):
    print(name, {label: round(float(each), 2) for label, each in zip(test.classes, p, strict=True)})
assert test.classes[logits[0].argmax()] == "gravel"

report.predictions(mine, logits, np.array([2, 2]), test.classes)

# %% [markdown]
# Near, it knows the stones. The second photograph was taken, so to say, from three times as far, and the network has
# never seen stones that small: it guesses. What you ask must look like what it was taught with, or it must be taught
# with more; `augment.Affine(zoom=…)` is a beginning.

# %%
holder.cleanup()

# %% [markdown]
# ## The real thing
#
# On your own folder of photographs, with a page about the run at the end:
#
#     jaxdl data inspect PHOTOS
#     jaxdl fine-tune PHOTOS --model efficientnet_lite0 --out RUN
#     jaxdl evaluate RUN PHOTOS
#     jaxdl predict RUN mine.jpg
#     jaxdl report RUN
#
# And Food-101 with all of its dishes. It wants a GPU and 5 GB of photographs, which tensorflow-datasets downloads, or
# which you give by `--manual-dir`:
#
#     python -m experiments.food_vision --cache CACHE --photos mine.jpg
#
# The paper DeepFood (2016) has 77.4 %, and the course reaches a little over 80 %. On a part of it, without a GPU:
#
#     python -m experiments.feature_extraction --data FOLDER
#     python -m experiments.fine_tuning --data FOLDER
#
# What these have measured, and what has not been run, is in [experiments/RESULTS.md](../experiments/RESULTS.md).
#
# ## Try it
#
# 1. Put twenty photographs each of two things from your kitchen into a folder, and train on them.
# 2. Which of its mistakes would you have made? Which come from wrong labels? (`report.most_wrong`)
# 3. Ask it about a photograph of something that is none of its classes. What does it say, and how sure is it?
#
# ## Where to go from here
#
# You have reached the end of the course. [docs/training.md](../docs/training.md) goes on with callbacks and
# interruptions, [docs/runs.md](../docs/runs.md) with what a run leaves, and
# [docs/architecture.md](../docs/architecture.md) tells how the library is built. Read it; you know enough now.
