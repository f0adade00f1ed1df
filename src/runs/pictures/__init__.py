"""The pictures of a run, drawn with Matplotlib from the files that the run left in its folder."""
