"""digitlab: experiments on handwritten digits whose results one can stand behind."""

__version__ = "0.1.0"
