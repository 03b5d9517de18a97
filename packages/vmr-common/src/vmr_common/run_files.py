"""Names of what a run leaves in its folder; training, the report and the commands all read or write some of it."""

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.jsonl"
RESULTS = "results.json"
FIGURES = "run.json"
PAGE = "report.html"
REPORT = "report.json"
EVENTS = "tensorboard"

ALL = (CONFIG, METRICS, CHECKPOINTS, PREDICTIONS, RESULTS, FIGURES, PAGE, REPORT, EVENTS)
