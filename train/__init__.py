"""Networks, losses, data and the training loop behind `stylize-train`."""
