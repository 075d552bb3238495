"""`stylize-bench`: how fast, how steady and how faithful a model is, as figures and as pictures."""
