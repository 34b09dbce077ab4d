"""How sure an effect is: contrasts of experiments, with the seeds and the images both left to chance.

An experiment is a few runs that differ in their seed alone, all judged on the same images. What one experiment is
above another, or the mean of some above that of others, is an estimate of what other seeds and other images would
give; so it has a standard error of two parts. Runs are not paired by seed: the same seed gives two networks nothing
in common but the order of their images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


def format_number(value: float, digits: int = 1, sign: bool = False) -> str:
    """ "51.2", or "+51.2", with so many decimals; a negative one with a true minus sign, and zero with none."""
    told = f"{value:z.{digits}f}"
    return f"+{told}" if sign and float(told) > 0 else told.replace("-", "−")


def format_end(points: float) -> str:
    """The end of an interval with its sign, and so many decimals, three at most, that it shows on which side of zero
    it lies: "+1.1", "−0.04"."""
    decimals = next((n for n in (1, 2, 3) if round(points, n)), 1)
    return format_number(points, decimals, sign=True)


@dataclass(frozen=True)
class Effect:
    """A contrast of experiments: its estimate, and the variance that each source of chance gives it.

    mean: in the unit of the measured quantity; seeds, images: variances, of the choice of seeds and of images;
    freedom: degrees of freedom of the former, the latter's being as many as images."""

    mean: float
    seeds: float
    images: float = 0.0
    freedom: float = np.inf

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(self.seeds + self.images))

    def find_half_width(self, confidence: float = CONFIDENCE) -> float:
        """Half the width of the interval, by Student's t with Satterthwaite's degrees of freedom; NaN without any."""
        from scipy import stats  # here, so that training needs no scipy

        if not self.freedom > 0:
            return np.nan
        freedom = self.freedom * (1 + self.images / self.seeds) ** 2 if self.seeds else np.inf
        return float(stats.t.ppf((1 + confidence) / 2, freedom)) * self.error

    def find_interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        half = self.find_half_width(confidence)
        return self.mean - half, self.mean + half

    @property
    def low(self) -> float:
        """The lower end of the 95% interval; NaN where one run is all there is."""
        return self.find_interval()[0]

    @property
    def high(self) -> float:
        return self.find_interval()[1]

    def format(self, scale: float = 100, digits: int = 1, sign: bool = False) -> str:
        """ "51.2 ± 0.8", half the 95% interval, in units of 1/scale; "51.2" where there is none."""
        mean, half = self.mean * scale, self.find_half_width() * scale
        if sign and 0 < round(abs(mean), digits) == round(half, digits):  # else it is not seen whether zero is in it
            digits += 1
        text = format_number(mean, digits, sign)
        return text if np.isnan(half) else f"{text} ± {half:.{digits}f}"


@dataclass(frozen=True)
class Scatter:
    """How far the runs of one experiment lie apart: variance, and how many degrees of freedom it is known with."""

    variance: float
    freedom: float


def moderate_variances(groups: Mapping[str, Sequence[float]]) -> dict[str, Scatter]:
    """The variance over seeds of each experiment of a family, that of few runs drawn towards what the family has in
    common (moderated by empirical Bayes, Smyth 2004, doi:10.2202/1544-6115.1027).

    groups: {experiment: one value a run}. Where the experiments scatter alike, as far as can be seen, or the runs of
    one not at all, all have the pooled variance; the less alike, the more each keeps its own. One with a single run has
    the common one. Without two runs of any experiment there is no variance, and the degrees of freedom are 0."""
    values = {name: np.asarray(group, float) for name, group in groups.items()}
    freedoms = {name: len(group) - 1 for name, group in values.items()}
    own = {name: values[name].var(ddof=1) for name, freedom in freedoms.items() if freedom > 0}
    total = sum(freedoms.values())
    if total == 0:
        return dict.fromkeys(groups, Scatter(np.nan, 0))
    pooled = sum(freedoms[name] * variance for name, variance in own.items()) / total
    prior, common = _fit_prior(np.array(list(own.values())), np.array([freedoms[name] for name in own]), pooled)
    scatters = {}
    for name, freedom in freedoms.items():
        if np.isinf(prior):
            scatters[name] = Scatter(pooled, total)
        else:
            known = prior + freedom
            scatters[name] = Scatter((prior * common + freedom * own.get(name, 0.0)) / known, min(known, total))
    return scatters


def _fit_prior(variances: np.ndarray, freedoms: np.ndarray, pooled: float) -> tuple[float, float]:
    """Degrees of freedom and variance of the distribution that the experiments' own variances come from, by the mean
    and the variance of their logarithms: infinite degrees, if these scatter no more than equal ones would."""
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    if len(variances) < 2 or not variances.all():
        return np.inf, pooled
    logs = np.log(variances) - digamma(freedoms / 2) + np.log(freedoms / 2)
    excess = logs.var(ddof=1) - polygamma(1, freedoms / 2).mean()
    if excess <= 0 or polygamma(1, 1e4) >= excess:
        return np.inf, pooled
    prior = 2 * brentq(lambda half: polygamma(1, half) - excess, 1e-3, 1e4)
    return prior, float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2)))


def weigh(after: Sequence[str], before: Sequence[str]) -> dict[str, float]:
    """The weights of a contrast: the mean of some experiments less the mean of others, if there are any."""
    weights = dict.fromkeys((*after, *before), 0.0)
    for names, sign in ((after, 1), (before, -1)):
        for name in names:
            weights[name] += sign / len(names)
    return weights


def estimate_contrast(
    weights: Mapping[str, float],
    values: Mapping[str, Sequence[float]],
    scatters: Mapping[str, Scatter],
    right: Mapping[str, np.ndarray] | None = None,
) -> Effect:
    """The weighted sum of the means of some experiments.

    weights, values, scatters: by experiment, as of `weigh`, one value a run, and as of `moderate_variances`; right:
    for an accuracy, which images each run answers rightly, bool (runs, N), of these experiments and of any like them:
    the choice of images is then a source of chance too."""
    mean = sum(weight * np.mean(values[name]) for name, weight in weights.items())
    seeds = sum(weight**2 * scatters[name].variance / len(values[name]) for name, weight in weights.items())
    freedom = min(scatters[name].freedom for name in weights)
    images = 0.0 if right is None else _calc_image_variance(weights, right)
    return Effect(float(mean), float(seeds), images, freedom)


def _calc_image_variance(weights: Mapping[str, float], right: Mapping[str, np.ndarray]) -> float:
    """The variance that the choice of images gives a contrast of accuracies, all runs being judged on the same ones.

    The contrast image by image varies for two reasons: some images are easier for the one than for the other, and one
    run of the same network answers an image rightly that the next does not. The latter is in the variance over seeds
    already, so it is taken off; of an experiment with a single run, what it is in the mean over the others."""
    by_image = sum(weight * right[name].mean(0) for name, weight in weights.items())
    flicker = {name: answers.var(0, ddof=1).mean() for name, answers in right.items() if len(answers) > 1}
    usual = np.mean(list(flicker.values())) if flicker else 0.0
    among_runs = sum(weight**2 * flicker.get(name, usual) / len(right[name]) for name, weight in weights.items())
    return float(max(by_image.var(ddof=1) - among_runs, 0.0) / len(by_image))


def choose_confidence(effects: Sequence, decide, wrong: float = 1 - CONFIDENCE) -> float:
    """The confidence of the intervals of several effects at which, of those that `decide` something, a share of at
    most `wrong` is expected to miss: 1 - wrong * decided / all (Benjamini and Yekutieli 2005,
    doi:10.1198/016214504000001907).

    decide: of an effect and a confidence, whether its interval decides. The highest number that bears itself out
    counts, as in Benjamini and Hochberg's procedure."""
    for decided in range(len(effects), 0, -1):
        confidence = 1 - wrong * decided / len(effects)
        if sum(decide(effect, confidence) for effect in effects) >= decided:
            return confidence
    return 1 - wrong / max(len(effects), 1)


def estimate_mean(values: Sequence[float]) -> Effect:
    """Mean of one value a seed, with Student's t interval: what other seeds would be expected to give. It covers the
    chance in training, not that in which images the split holds; a single run has no interval."""
    known = np.asarray(values, float)
    freedom = len(known) - 1
    return Effect(float(known.mean()), float(known.var(ddof=1) / len(known)) if freedom else 0.0, 0.0, freedom)


def bound_share(share: float, images: int) -> float:
    """Half the 95% interval of a share of so many images, 0-1: what their choice alone leaves open."""
    return 1.96 * (share * (1 - share) / images) ** 0.5


def estimate_difference(before: Sequence[float], after: Sequence[float]) -> Effect:
    """Mean of after - before, where each pair has something in common: one network under two views of its images, one
    setting in two searches. Runs of two experiments have nothing in common but a seed; see `compare_runs`."""
    return estimate_mean(np.subtract(after, before))
