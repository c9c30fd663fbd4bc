"""The board in a browser: pages and an API that only read, from the same pure functions as the printed board."""
