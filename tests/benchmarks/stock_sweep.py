"""Stock Hydra's side of `make bench-sweep`: hydra.main on digitlab's conf/, and nothing to train.

Says a line at the start of each job. Knows nothing of digitlab: its sweeper and launcher are chosen
away on the command line.
"""

import os
from typing import Any

import hydra


@hydra.main(config_path=f"{os.environ['DIGITLAB_HOME']}/conf", config_name="config", version_base="1.3")
def main(config: Any) -> None:
    print("started", flush=True)


if __name__ == "__main__":
    main()
