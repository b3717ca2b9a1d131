"""Adding two marked numbers and copying symbols after a pause: how long a memory reaches."""
