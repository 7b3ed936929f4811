"""Commands of `rohe-inference`, one module for each group of them."""
