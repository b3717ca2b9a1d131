"""structdl: structured deep learning in JAX. Import the topic that you need."""

__version__ = "0.1.0"
