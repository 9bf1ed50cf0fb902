#!/bin/sh
# Both models on the embedded digits, recorded and compared: what `make run` does.
set -e
digitlab=${DIGITLAB:-.venv/bin/digitlab}
"$digitlab" train study=quickstart model=logistic_regression
"$digitlab" train study=quickstart model=cnn
echo
"$digitlab" runs --study quickstart
cat <<TEXT

What to type next (or put .venv/bin on your PATH first):
  $digitlab ui                                     look at the runs in the MLflow UI
  $digitlab compare quickstart                     is the difference real?
  $digitlab report quickstart                      all of it as one page
  $digitlab show RUN                               everything recorded of one run
  $digitlab demo RUN                               draw a digit, see what the model reads
  $digitlab train data=mnist model=cnn epochs=3    real MNIST (downloads 11 MB)
  $digitlab config --knobs                         every knob and what it may be
TEXT
