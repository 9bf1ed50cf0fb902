"""Write the golden losses anew and say which have moved."""

from digitlab.config.composition import compose
from tests import golden

for model in golden.MODELS:
    found = golden.measure(model, compose([f"model={model}", *golden.OVERRIDES]))
    try:
        before = golden.read(model)
    except FileNotFoundError:
        before = None
    golden.write(model, found)
    print(
        f"{model}: {'unchanged' if found == before else 'CHANGED: say in the commit what moved them'}"
    )
