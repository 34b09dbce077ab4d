"""Every figure of the report. Each function returns a matplotlib Figure whose title states what it shows, taken from
the numbers drawn."""
# ruff: noqa: F401 - what is imported here is what the package offers

from fer_lib.plots.compared import (
    plot_effects,
    plot_gains,
    plot_interaction,
    plot_ladder,
    plot_method,
    plot_regime,
    plot_statements,
)
from fer_lib.plots.images import (
    plot_agreement,
    plot_augmentations,
    plot_balanced_faces,
    plot_balancing,
    plot_blurring,
    plot_class_counts,
    plot_eigenfaces,
    plot_faces,
    plot_mean_face_differences,
    plot_mean_faces,
    plot_pixel_statistics,
    plot_rotations,
)
from fer_lib.plots.networks import (
    plot_accuracy_by_agreement,
    plot_answers,
    plot_maps,
    plot_masking,
    plot_members,
    plot_reliability,
)
from fer_lib.plots.runs import (
    plot_accuracies,
    plot_confusion_counts,
    plot_confusions,
    plot_curves,
    plot_gaps,
    plot_gradient_norms,
    plot_recall_change,
)
from fer_lib.plots.searches import plot_learning_rates, plot_search, plot_search_budget, plot_search_interactions
from fer_lib.plots.style import VERDICT_COLOURS, describe_figure, join_names, set_style
