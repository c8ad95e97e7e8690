"""Files in, ragged batches out: readers of data sets and vocabularies."""
