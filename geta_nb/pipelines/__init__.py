"""The paper's experiments as pipelines: data in their real formats and stand-ins for them, networks, a run that can be killed, reports."""
