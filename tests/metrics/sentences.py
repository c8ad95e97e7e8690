"""Random captions for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

words = st.sampled_from(["a", "dog", "cat", "runs", "on", "grass"])
sentence = st.lists(words, min_size=1, max_size=8).map(" ".join)
corpora = st.lists(st.tuples(sentence, st.lists(sentence, min_size=1, max_size=4)), min_size=1, max_size=5)
