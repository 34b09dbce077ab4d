"""The shared package of the report: data, models, training, records, evaluation, figures."""

__version__ = "0.3.0"
