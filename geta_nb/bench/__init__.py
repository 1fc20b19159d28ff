"""Benchmarks that the README's tables come from: real data, fixed seeds, no tuning per row."""
