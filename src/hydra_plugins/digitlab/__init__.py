"""digitlab's sweeper and launcher, where Hydra looks for plugins. Thin: Hydra imports them at every
start, and Hydra 1.3 imports them twice; all they do is hand over to digitlab.sweep."""
