"""What a run leaves, by name: its tags, metrics and files, each written here and nowhere else.

Recorded runs have these names: none may change. A name that ends in a dot or a slash is the start of
several. Knobs are params, by their dotted paths. Knows nothing else.
"""

from typing import Final

# How a run stands; MLflow, which has no word for a trial that a search gave up, has it as KILLED.
STATES = ("RUNNING", "FINISHED", "FAILED", "KILLED", "PRUNED")

# Tags of any run.
RECORD_TAG = "digitlab.record"  # the id of its run folder
KIND_TAG = "digitlab.kind"  # `sweep`: the parent run of a sweep; no other run has it
ERROR_TAG = "digitlab.error"  # why it is FAILED or KILLED
PROCESS_TAG = "digitlab.process."  # host, boot_id, pid, started: the process that it runs in
VERSION_TAG = "digitlab.version"
COMMIT_TAG = "digitlab.commit"
DIRTY_TAG = "digitlab.dirty"  # true: with source that is not committed
COMMAND_TAG = "digitlab.command"
SOURCE_NAME_TAG, SOURCE_TYPE_TAG = "mlflow.source.name", "mlflow.source.type"  # columns of MLflow's UI
SOURCE_COMMIT_TAG = "mlflow.source.git.commit"
NOTE_TAG = "mlflow.note.content"  # its description, in Markdown
OWN_NOTE_TAG = "digitlab.note"  # what its user says of it, at the head of the description
NAME_TAG = "mlflow.runName"
PARENT_TAG = "mlflow.parentRunId"

# Tags of a run that trains. Digests are SHA-256 in hex.
FINGERPRINT_TAG = "digitlab.fingerprint"  # of all that decides the result; "": nothing may reuse it
REPRODUCIBLE_TAG = "digitlab.reproducible"  # false: went on though code, data or arithmetic had changed
CONFIG_TAG = "digitlab.config"  # digest of the resolved configuration
SOURCE_TAG = "digitlab.source"  # digest of digitlab's source
DATA_TAG = "digitlab.data."  # train_images, ..., test_labels, ...: digest of each
TEST_IMAGES_TAG = f"{DATA_TAG}test_images"
CANARY_TAG = "digitlab.canary"  # digest of a small computation: equal where arithmetic is
WEIGHTS_TAG = "digitlab.weights"  # digest of the tested weights
HOST_TAG = "digitlab.host"
USER_TAG = "mlflow.user"  # by whose name the server let the run in
DEVICE_TAG = "digitlab.device"  # cpu or cuda
DIVERGED_EPOCH_TAG, DIVERGED_STEP_TAG = "digitlab.diverged.epoch", "digitlab.diverged.step"
REPRODUCES_TAG = "digitlab.reproduces"  # the id of the run that it repeats
VARIES_TAG = "digitlab.varies"  # the id of the run whose record it was made from, with other knobs
IMPORTED_TAG = "digitlab.imported"  # the id that it had in the store that it came from
VERDICT_TAG = "digitlab.verdict"  # how its reproduction ended

# Tags of a trial.
SWEEP_TAG = "sweep"  # the ids of the sweeps that it belongs to
TRIAL_TAG = "trial"  # its number
SWEPT_TAG = "swept."  # each knob that is swept: its value as text; params of the parent run, too
ENGINE_TAG = "digitlab.engine"  # `sequential`, or `fused, N side by side`
PRUNED_TAG = "digitlab.pruned.epoch"

# Tags of a sweep's parent run.
PARENT_SWEEP_TAG = "digitlab.sweep"  # the sweep's id
BEST_TRIAL_TAG, BEST_RUN_TAG = "best.trial", "best.run"  # name and run id

# Metrics of every epoch. Losses in nats, accuracies in [0, 1].
TRAIN_LOSS, TRAIN_ACCURACY = "train/loss", "train/accuracy"
VALIDATION_LOSS: Final = "validation/loss"
VALIDATION_ACCURACY: Final = "validation/accuracy"
LEARNING_RATE = "train/learning_rate"
EPOCH_SECONDS, IMAGES_PER_SECOND = "time/epoch_seconds", "time/images_per_second"

# Metrics of the tested weights; step: their epoch.
CHOSEN_EPOCH = "chosen/epoch"
CHOSEN_LOSS, CHOSEN_ACCURACY = "chosen/validation_loss", "chosen/validation_accuracy"
CHOSEN = {VALIDATION_LOSS: CHOSEN_LOSS, VALIDATION_ACCURACY: CHOSEN_ACCURACY}
TEST_LOSS, TEST_ACCURACY = "test/loss", "test/accuracy"
MACRO_F1 = "test/macro_f1"
CALIBRATION_ERROR = "test/calibration_error"
BEST_METRIC = "best/"  # of a parent run: these metrics of its best trial so far

# Artifacts of a run that trains. config.yaml and weights.safetensors are named in models/saved.py,
# model.json in models/signature.py.
RECORD_FILE = "record.json"  # all from which it can be run again and judged: runs/document.py
PATCH_FILE = "source.patch"  # what was not committed
ABOUT_FILE = "about.json"  # of a run in an archive: name, times, tags
EPOCHS_FILE = "metrics.csv"
PER_CLASS_FILE = "per_class.csv"
PREDICTIONS_FILE = "predictions.parquet"  # the answer to every test image
CURVES_PICTURE = "learning_curves.png"  # of a parent run, too
CONFUSION_PICTURE = "confusion_matrix.png"
MISTAKES_PICTURE = "worst_mistakes.png"
TRACEBACK_FILE = "traceback.txt"  # of a run that failed
MODEL_FOLDER = "model"  # in MLflow's format, with record.mlflow_model=true or after a promotion

# Artifacts of a parent run.
MANIFEST_FILE = "manifest.json"  # the trials; the sweep's own folder has one under this name, too
TRIALS_FILE = "trials.csv"
SUMMARY_FILE = "summary.md"
PARALLEL_PICTURE = "parallel_coordinates.png"
IMPORTANCE_PICTURE = "importance.png"
SWEEP_PAGE = "sweep.html"
REPORT_PAGE, REPORT_MARKDOWN = "report.html", "report.md"

# A run folder on this disk: tracking/run_folder.py.
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
DELIVERY_FILE = "delivery.json"
