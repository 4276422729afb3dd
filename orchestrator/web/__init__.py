"""The console: Flower with our pages. Importing the package imports nothing of Flower's; `entry` says how it is opened."""
