"""From checkpoint to a proven model file: the code behind `stylize-export`."""
