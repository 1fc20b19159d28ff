"""Python side of the notebook widgets: traits, callbacks and the training thread. Last stage: imports core and displays, never the reverse."""
