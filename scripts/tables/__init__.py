"""The tables of docs/: each page is written by hand but for what stands between its markers."""
