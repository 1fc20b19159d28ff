"""Python side of the notebook widgets: traits, callbacks, the training thread. Imports core and displays, never the reverse."""
