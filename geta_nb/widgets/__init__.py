"""The Python side of the widgets: what a page is told, and what it sends back. Imported when a widget is asked for; see ``_LAZY``."""
