"""The faults that this project is held against, and what is injected for each.

The tests of each carry its number: `@pytest.mark.fault("F7")`. `make test-faults` runs them all.
"""

FAULTS = {
    "F1": "kill -9 in the middle of a training",
    "F2": "SIGTERM, SIGHUP",
    "F3": "Ctrl-C",
    "F4": "Ctrl-C in a sweep",
    "F5": "trials of a sweep that fail",
    "F6": "an exception in a run",
    "F7": "kill -9 in an artifact's upload",
    "F8": "the store locked by another process",
    "F9": "eight processes on a fresh store",
    "F10": "the server away at the start",
    "F11": "the server killed, or hung, in the middle of a run",
    "F12": "a full disk",
    "F13": "damaged data",
    "F14": "a training that diverges",
    "F15": "knobs that are unknown or out of range",
    "F16": "knobs of a wrong type, data that are missing",
    "F17": "hundreds of runs in one process",
    "F18": "a sweep of a thousand trials",
    "F19": "kill -9, SIGTERM and Ctrl-C in a search",
    "F20": "a search with a seed, cut short and resumed",
    "F21": "metrics that are not finite",
    "F22": "code in a configuration that was pulled",
    "F23": "a pickled job for Hydra to rerun",
    "F24": "a secret's name in a configuration that was pulled",
    "F25": "a pickled model",
    "F26": "names of files that lead elsewhere",
    "F27": "pictures that are bombs",
    "F28": "one sweep started twice at once",
}
