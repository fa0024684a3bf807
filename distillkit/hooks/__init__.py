"""The front door: hook points, kinds of components, and how plugins are loaded."""
