# %% [markdown]
# # 8. Precision and recall
#
# One machine in twenty is about to fail. A network that always says "it is fine" is right 95 times in 100, and
# worthless. At the end of this notebook you can
#
# - compute precision, recall and F1 from four counts, and say what each of them is blind to,
# - choose a threshold instead of taking one half,
# - weigh classes, and leave out or repeat rows, and say what that does and what it does not do,
# - avoid the mistake that makes all of it look better than it is.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification

import jaxdl
from jaxdl import data, losses, metrics, models, report

jaxdl.parallel.configure()

# %% [markdown]
# ## The data, and a result that looks good
#
# 6,000 made-up machines with eight measurements each; about 5 % of them will fail. We train on the first 3,000 and
# measure on the others.

# %%
rows, fails = make_classification(
    6000, n_features=8, n_informative=4, weights=[0.95], flip_y=0.01, class_sep=0.9, random_state=4
)
machines = data.from_arrays(rows.astype(np.float32), fails, classes=("fine", "fails"))
train, test = machines.subset(np.arange(3000)), machines.subset(np.arange(3000, 6000))
share = test.labels.mean()
print(f"{share:.1%} of the test machines fail; always saying 'fine' is right for {1 - share:.1%}")

bce = losses.binary_cross_entropy


def learn(source, loss=bce):
    model = models.create("dense", 1, hidden=(16,))
    return jaxdl.fit(model, source, phases=jaxdl.Phase(20, 5e-3), loss=loss, seed=1, progress=False)


plain = learn(train)
found = jaxdl.evaluate(plain.model, plain.variables, test, loss=bce, metrics={"matrix": metrics.confusion()})
matrix = found["matrix"].astype(int)
print(f"accuracy of the network: {matrix.trace() / matrix.sum():.1%}")

# %% [markdown]
# A little better than always saying "fine", but is it good? One number cannot say. Count instead.
#
# ## Four counts
#
# The confusion matrix has a row for what is true, and a column for what was said:

# %%
(tn, fp), (fn, tp) = matrix
print("                 said fine   said fails")
print(f"it is fine       {tn:9}    {fp:9}      (false alarms)")
print(f"it fails         {fn:9}    {tp:9}      (and {fn} were missed)")

report.confusion_matrix(matrix, test.classes, normalize=False)

# %% [markdown]
# From these, two questions, which a mechanic would ask:
#
# - When it says "fails", how often is that so? That is **precision**: $\displaystyle P = \frac{TP}{TP + FP}.$
# - Of those that fail, how many does it find? That is **recall**: $\displaystyle R = \frac{TP}{TP + FN}.$
#
# Each is blind to something. Saying "fails" of every machine finds them all: recall 1, precision 6 %. Saying it of only
# the one clearest case: precision 1, and recall next to nothing. **F1** is their harmonic mean, which is low if
# *either* is low:
#
# $$F_1 = \frac{2}{\frac1P + \frac1R} = \frac{2\,P R}{P + R} = \frac{2\,TP}{2\,TP + FP + FN}.$$

# %%
precision, recall = tp / (tp + fp), tp / (tp + fn)
f1 = 2 * precision * recall / (precision + recall)
print(f"precision {precision:.3f}   recall {recall:.3f}   F1 {f1:.3f}")
print()
scores = metrics.classification_report(matrix, test.classes)
print(scores)
assert np.isclose(scores.classes["fails"].f1, f1)


print(f"\nsaying 'fails' of all: the mean of both is {(share + 1) / 2:.2f}, but F1 is {2 * share / (share + 1):.2f}")

# %% [markdown]
# The row to look at is that of the class that matters. The rows in brackets are averages: *macro* counts both classes
# alike, *weighted* by how many examples they have, and *micro* is the accuracy. They hide here what one wants to know.
#
# ## The threshold is yours
#
# The network gives a probability. That we say "fails" from one half on is a habit, not a law. If a failure costs far
# more than a check, say it from 10 % on, or from 1 %. A lower threshold finds more and raises more false alarms: recall
# can only rise, and precision usually falls.

# %%
curve = jaxdl.evaluate(
    plain.model, plain.variables, test, loss=bce, metrics={"curves": metrics.precision_recall_curve()}
)["curves"][0]
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
report.thresholds(curve, axis=axes[0])
report.precision_recall([curve], ["fails"], axis=axes[1])
axes[1].legend(loc="lower left")
plt.show()

p = 1 / (1 + np.exp(-jaxdl.predict(plain.model, plain.variables, test)[:, 0]))
for threshold in (0.5, 0.2, 0.05):
    said, truth = p >= threshold, test.labels == 1
    hits = (said & truth).sum()
    precision, recall = hits / said.sum(), hits / truth.sum()
    print(f"from {threshold:4} on: precision {precision:.2f}, recall {recall:.2f}, {said.sum()} machines to check")

# %% [markdown]
# On the right, each threshold is a point. The circle is one half, the star the best F1. The nearer a curve comes to the
# upper right corner, the better the network; the threshold only chooses a point *on* the curve.
#
# What should it be? Put prices on it. If a missed failure costs 20 times as much as a check, then a check pays off from
# a probability of 1/20 on, as long as the probabilities are honest. A threshold that is read off a curve, such as the
# star's, is to be chosen on validation data, like everything that is chosen; we have drawn it for the test machines
# only to keep this short. Here is the bill:


# %%
def bill(threshold):
    checks, missed = p >= threshold, (p < threshold) & (test.labels == 1)
    return 1 * checks.sum() + 20 * missed.sum()


print(f"from 0.5 on the bill is {bill(0.5)}, from 0.05 on {bill(0.05)}")
assert bill(0.05) < bill(0.5)

levels = np.linspace(0.01, 0.9, 90)
plt.figure(figsize=(5, 2.8))
plt.plot(levels, [bill(level) for level in levels])
plt.axvline(1 / 20, color="gray", linestyle="--", label="1/20")
plt.xlabel("threshold")
plt.ylabel("cost")
plt.legend()
plt.show()

# %% [markdown]
# ## Learning from few examples of one kind
#
# There are other ways to make a network take the rare class seriously:
#
# - **class weights**: a mistake on a rare example counts for more in the loss. `losses.balanced_weights` gives each
#   class the same say.
# - **undersampling**: leave out rows of the common class, until there are as many of both.
# - **oversampling**: repeat rows of the rare class, until there are as many of both.

# %%
weights = losses.balanced_weights(train.labels, 2)
print(f"class weights: fine {weights[0]:.2f}, fails {weights[1]:.2f}")
ways = {
    "as it is": (train, bce),
    "class weights": (train, losses.class_weighted(bce, weights)),
    "undersampling": (data.undersample(train, seed=0), bce),
    "oversampling": (data.oversample(train, seed=0), bce),
}
curves = {}
print(f"\n{'':14} {'rows':>5} {'precision':>10} {'recall':>7} {'F1':>6} {'mean p':>7}")
for name, (source, loss) in ways.items():
    result = learn(source, loss)
    figures = jaxdl.evaluate(
        result.model,
        result.variables,
        test,
        loss=bce,
        metrics={"matrix": metrics.confusion(), "curves": metrics.precision_recall_curve()},
    )
    curves[name] = figures["curves"][0]
    row = metrics.classification_report(figures["matrix"], test.classes).classes["fails"]
    mean_p = (1 / (1 + np.exp(-jaxdl.predict(result.model, result.variables, test)))).mean()
    print(f"{name:14} {len(source):5} {row.precision:10.2f} {row.recall:7.2f} {row.f1:6.2f} {mean_p:7.2f}")

report.precision_recall(list(curves.values()), list(curves))

# %% [markdown]
# All three raise recall and lower precision, and by a lot. But look at the curves. Those of class weights and
# oversampling lie close to that of the data as they are: the circles, at one half, have only moved to another point of
# nearly the same curve. What balancing mainly does is to move the threshold; you could have had it for nothing, by
# choosing the threshold of the network as it was. Undersampling lies lower, as it has thrown away nine tenths of the
# rows. And there is a price: the probabilities are no longer honest. 5.7 % of the machines fail, and the last column
# says how probable the networks take a failure to be, on average.
#
# So: take the data as they are, choose the threshold by what mistakes cost. Balance where the rare class is so rare
# that training does not find it at all.
#
# ## The mistake to avoid
#
# Oversample *before* you split off test rows, and copies of training rows are among the test rows. Undersample the test
# rows, and precision is measured in a world where every other machine fails. Here is the second of them, with the same
# network:

# %%
half_and_half = data.undersample(test, seed=0)
for name, each in {"all test machines": test, "as many of both": half_and_half}.items():
    precision = {"precision": metrics.precision(1, threshold=0.05)}
    found = jaxdl.evaluate(plain.model, plain.variables, each, loss=bce, metrics=precision)
    print(f"{name:18} precision from 0.05 on {found['precision']:.2f}")

# %% [markdown]
# Nothing has changed but the world in which it is measured. Resample what is trained on, and nothing else.
#
# ## Try it
#
# 1. Compute accuracy, precision, recall and F1 with pencil and paper for $TP = 30, FP = 20, FN = 10, TN = 940$.
# 2. `curve.at_precision(0.9)` gives the highest recall with at least that precision. How many failures are found?
# 3. Let only 0.5 % of the machines fail (`weights=[0.995]`). Which of the four ways still works?
#
# ## Where to go from here
#
# [experiments/churn.py](../experiments/churn.py) and [experiments/imbalance.py](../experiments/imbalance.py) do this
# with customers who leave, on the course's table. All figures are sums that add up over batches, in
# [jaxdl/metrics.py](../jaxdl/metrics.py); [docs/metrics.md](../docs/metrics.md) lists them. Next: [9.
# Convolutions](09_cnn.ipynb).
