"""gptlib: the package of the book *Build a GPT, Generate Text*.

Nothing is imported here: the import line of a notebook names the file to read, as in
`from gptlib.model.attention import CausalSelfAttention`.
"""

__version__ = "0.1.0"
