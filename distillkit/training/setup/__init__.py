"""From a recipe to everything that a run needs: resolved, then built, part by part."""
