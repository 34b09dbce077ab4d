"""An experiment's settings, in words."""

from fer_lib.experiment import Experiment
from fer_lib.experiments import find_experiment
from fer_lib.plots import join_names


def list_means(experiment: Experiment) -> str:
    """How an experiment finds its weights, in words."""
    recipe, rate = experiment.recipe, f"{experiment.learning_rate:g}"
    words = [{"adam": "Adam", "sgd": "gradient descent with Nesterov's momentum"}[recipe.optimizer]]
    cycle = f"a learning rate that rises to {rate} and falls to zero along half a cosine"
    words.append({"constant": f"a learning rate of {rate}", "one_cycle": cycle}[recipe.schedule])
    told = {
        "weight_decay": "weight decay of {:g}",
        "label_smoothing": "label smoothing of {:g}",
        "mixup": "mixup, its shares drawn from a beta distribution of {:g}",
        "small_share": "smaller images in the first {:.0%} of the epochs",
        "averaging": "a moving average of the weights, of which each batch keeps {:g}, as what is judged",
    }
    words += [text.format(getattr(recipe, field)) for field, text in told.items() if getattr(recipe, field)]
    if experiment.teachers:
        teachers = join_names([find_experiment(teacher).step for teacher in experiment.teachers])
        words.append(f"{recipe.teaching:.0%} of the loss against the mean answers of the networks of {teachers}")
    return join_names(words)


def list_treatments(experiment: Experiment) -> str:
    """What is done to each training image of an experiment, in words."""
    augmentation = experiment.augmentation
    told = {
        "flip": "mirrored with a probability of {:g}",
        "rotation": "turned by up to {:g}°",
        "zoom": "enlarged or shrunk by up to {:.0%}",
        "crop_padding": "moved by up to {:g} pixels",
        "window": "cut down to a square of {0}×{0} pixels somewhere in it",
        "light": "changed in contrast and brightness by up to {:.0%}",
        "erasing": "covered in part by a grey box with a probability of {:g}",
    }
    treated = ((text, getattr(augmentation, field)) for field, text in told.items())
    return join_names([text.format(value) for text, value in treated if value])
